import { Button, NumberInput, Select } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Play } from "lucide-react";
import type { FormEvent } from "react";
import { useNavigate } from "react-router";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import { ApiProblem } from "../../api/problem";
import { type Draft, METHODS, missing, requestOf, ROUTERS, WORKLOADS } from "./scenario";
import s from "./WhatIfPage.module.css";

interface Props {
  draft: Draft;
  onChange: (draft: Draft) => void;
  allowed: boolean;
  role: string;
}

function asNumber(value: string | number): number | null {
  const number = typeof value === "number" ? value : Number.parseFloat(value);
  return Number.isFinite(number) ? number : null;
}

/** Two fixed ratios against the controller on one workload. Limits are the server's; it names the field. */
export function ScenarioForm({ draft, onChange, allowed, role }: Props) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const start = useMutation({
    mutationFn: () => bodyOf(api.POST("/api/v1/whatifs/", { body: requestOf(draft) })),
    onSuccess: async (run) => {
      client.setQueryData(keys.whatif(run.id), run);
      await client.invalidateQueries({ queryKey: keys.whatifs });
      void navigate(`/whatifs/${run.id}`);
    },
  });
  const problem = start.error instanceof ApiProblem ? start.error : null;
  const about = (field: string) => problem?.about(field) ?? null;
  const set = <Name extends keyof Draft>(name: Name, value: Draft[Name]) => onChange({ ...draft, [name]: value });
  const shared = { disabled: !allowed, hideControls: true };

  function submit(event: FormEvent): void {
    event.preventDefault();
    start.mutate();
  }

  return (
    <form className={s.form} onSubmit={submit} noValidate>
      <Select
        label="Workload"
        data={WORKLOADS}
        value={draft.workload}
        onChange={(value) => value && set("workload", value as Draft["workload"])}
        description={WORKLOADS.find((entry) => entry.value === draft.workload)?.hint}
        inputWrapperOrder={["label", "input", "description", "error"]}
        disabled={!allowed}
        error={about("workload")}
      />
      <div className={s.pair}>
        <NumberInput {...shared} label="First fixed ratio" suffix=" % EMB" value={draft.firstPercent ?? ""} onChange={(value) => set("firstPercent", asNumber(value))} error={about("static_ratios/0")} />
        <NumberInput {...shared} label="Second fixed ratio" suffix=" % EMB" value={draft.secondPercent ?? ""} onChange={(value) => set("secondPercent", asNumber(value))} error={about("static_ratios/1")} />
      </div>
      <Select label="Against" data={METHODS} value={draft.method} onChange={(value) => value && set("method", value as Draft["method"])} disabled={!allowed} error={about("method")} />
      <div className={s.pair}>
        <NumberInput {...shared} label="Nodes" value={draft.nodes ?? ""} onChange={(value) => set("nodes", asNumber(value))} error={about("nodes")} />
        <NumberInput {...shared} label="Simulated time" suffix=" s" value={draft.durationSeconds ?? ""} onChange={(value) => set("durationSeconds", asNumber(value))} error={about("duration_seconds")} />
      </div>
      <div className={s.pair}>
        <NumberInput {...shared} label="Requests per second" placeholder="as the workload" value={draft.ratePerSecond ?? ""} onChange={(value) => set("ratePerSecond", asNumber(value))} error={about("rate_per_second")} />
        <NumberInput {...shared} label="Seed" value={draft.seed ?? ""} onChange={(value) => set("seed", asNumber(value))} error={about("seed")} />
      </div>
      <Select label="Router" data={ROUTERS} value={draft.router} onChange={(value) => value && set("router", value as Draft["router"])} disabled={!allowed} error={about("router")} />
      {start.isError && (problem === null || problem.errors.length === 0) && (
        <p className="small" style={{ color: "var(--crit)" }} role="alert">
          {problem?.sentence ?? "The control plane cannot be reached. No run was started."}
        </p>
      )}
      <Button type="submit" variant="filled" leftSection={<Play size={14} />} loading={start.isPending} disabled={!allowed || missing(draft).length > 0}>
        Run simulation
      </Button>
      {!allowed && <p className="tiny dim">Your role ({role || "none"}) can look but not run simulations. Ask an operator.</p>}
    </form>
  );
}
