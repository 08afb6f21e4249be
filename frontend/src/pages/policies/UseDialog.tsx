import { Button, Modal, SegmentedControl } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api } from "../../api/client";
import { keys } from "../../api/keys";
import { ApiProblem } from "../../api/problem";
import type { Policy } from "../../api/types";
import { isComplete, NO_TARGETS, TargetFields, targetsOf } from "./targets";
import s from "./PoliciesPage.module.css";

const MODES = [
  { value: "advisory", label: "Advise only" },
  { value: "active", label: "Decide" },
];

/** Set a version on nodes. Advising comes first: it decides and records, and moves nothing. */
export function UseDialog({ policy, onClose }: { policy: Policy; onClose: () => void }) {
  const client = useQueryClient();
  const [targets, setTargets] = useState(NO_TARGETS);
  const [controller, setController] = useState<"advisory" | "active">("advisory");
  const set = useMutation({
    mutationFn: () => api.POST("/api/v1/policies/{digest}/use/", { params: { path: { digest: policy.digest } }, body: { ...targetsOf(targets), controller } }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: keys.policies });
      await client.invalidateQueries({ queryKey: keys.nodes });
      onClose();
    },
  });
  const problem = set.error instanceof ApiProblem ? set.error : null;
  function submit(event: FormEvent): void {
    event.preventDefault();
    set.mutate();
  }
  return (
    <Modal opened onClose={onClose} title={`Set ${policy.label} on nodes`} size={480}>
      <form className={s.form} onSubmit={submit}>
        <TargetFields value={targets} onChange={setTargets} problem={problem} />
        <SegmentedControl aria-label="How it is used" data={MODES} value={controller} onChange={(value) => setController(value as typeof controller)} />
        <p className="small quiet">
          {controller === "active"
            ? "The nodes decide by it from their next decision on. A policy that keeps losing to its shadow is demoted by the node itself."
            : "The nodes record what it would do and move nothing: their split stays where it is."}
        </p>
        {set.isError && (problem === null || problem.errors.length === 0) && (
          <p className="small" role="alert" style={{ color: "var(--crit)" }}>
            {problem?.sentence ?? "The control plane cannot be reached. Nothing was changed."}
          </p>
        )}
        <div className="row" style={{ justifyContent: "flex-end" }}>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="filled" disabled={!isComplete(targets)} loading={set.isPending}>
            Set
          </Button>
        </div>
      </form>
    </Modal>
  );
}
