import { Button, Switch, TextInput } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, useState } from "react";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import { ApiProblem } from "../../api/problem";
import { useSchedule } from "../../api/queries";
import type { Schedule } from "../../api/types";
import { Loaded, Panel } from "../../components/Panel";
import { logTime } from "../../format/time";
import s from "./PoliciesPage.module.css";

/** When policies are tuned by themselves. */
export function SchedulePanel({ allowed }: { allowed: boolean }) {
  const query = useSchedule();
  return (
    <Panel title="Schedule" note="tunes the version that decides then">
      <Loaded query={query} height={120}>
        {(schedule) => <ScheduleForm key={`${schedule.enabled} ${schedule.cron}`} schedule={schedule} allowed={allowed} />}
      </Loaded>
    </Panel>
  );
}

function ScheduleForm({ schedule, allowed }: { schedule: Schedule; allowed: boolean }) {
  const client = useQueryClient();
  const [enabled, setEnabled] = useState(schedule.enabled);
  const [cron, setCron] = useState(schedule.cron);
  const save = useMutation({
    mutationFn: () => bodyOf(api.PUT("/api/v1/training/schedule/", { body: { enabled, cron: cron.trim(), options: schedule.options } })),
    onSuccess: (written) => client.setQueryData(keys.schedule, written),
  });
  const problem = save.error instanceof ApiProblem ? save.error : null;
  const changed = enabled !== schedule.enabled || cron.trim() !== schedule.cron;
  function submit(event: FormEvent): void {
    event.preventDefault();
    save.mutate();
  }
  return (
    <form className={s.form} onSubmit={submit}>
      <Switch label="Tune by itself" checked={enabled} onChange={(event) => setEnabled(event.currentTarget.checked)} disabled={!allowed} />
      <TextInput
        label="When"
        description="Minute, hour, day of month, month, day of week; UTC"
        value={cron}
        maxLength={120}
        onChange={(event) => setCron(event.currentTarget.value)}
        disabled={!allowed}
        error={problem?.about("cron")}
        styles={{ input: { fontFamily: "var(--mono)" } }}
      />
      <p className="small quiet">
        {schedule.next_run_at ? `Next at ${logTime(new Date(schedule.next_run_at), new Date())} UTC. ` : "Switched off. "}
        {schedule.last_run_at && <span className="dim">Last at {logTime(new Date(schedule.last_run_at), new Date())} UTC.</span>}
      </p>
      {save.isError && (problem === null || problem.errors.length === 0) && (
        <p className="small" style={{ color: "var(--crit)" }} role="alert">
          {problem?.sentence ?? "The control plane cannot be reached. Nothing was changed."}
        </p>
      )}
      <Button type="submit" disabled={!allowed || !changed} loading={save.isPending}>
        Save schedule
      </Button>
    </form>
  );
}
