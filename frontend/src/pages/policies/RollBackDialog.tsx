import { Button, Modal } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api } from "../../api/client";
import { keys } from "../../api/keys";
import { ApiProblem } from "../../api/problem";
import { isComplete, NO_TARGETS, TargetFields, targetsOf } from "./targets";
import s from "./PoliciesPage.module.css";

/** One assignment back, on each node. */
export function RollBackDialog({ onClose }: { onClose: () => void }) {
  const client = useQueryClient();
  const [targets, setTargets] = useState(NO_TARGETS);
  const back = useMutation({
    mutationFn: () => api.POST("/api/v1/policies/rollback/", { body: targetsOf(targets) }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: keys.policies });
      await client.invalidateQueries({ queryKey: keys.nodes });
      onClose();
    },
  });
  const problem = back.error instanceof ApiProblem ? back.error : null;
  function submit(event: FormEvent): void {
    event.preventDefault();
    back.mutate();
  }
  return (
    <Modal opened onClose={onClose} title="Roll back" size={480}>
      <form className={s.form} onSubmit={submit}>
        <p className="small quiet">Each node goes back to what decided there before the newest change; done twice, two changes back.</p>
        <TargetFields value={targets} onChange={setTargets} problem={problem} />
        {back.isError && (problem === null || problem.errors.length === 0) && (
          <p className="small" role="alert" style={{ color: "var(--crit)" }}>
            {problem?.sentence ?? "The control plane cannot be reached. Nothing was changed."}
          </p>
        )}
        <div className="row" style={{ justifyContent: "flex-end" }}>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="filled" color="red" disabled={!isComplete(targets)} loading={back.isPending}>
            Roll back
          </Button>
        </div>
      </form>
    </Modal>
  );
}
