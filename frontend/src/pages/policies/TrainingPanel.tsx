import { Button, NumberInput, Select } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Play, Square } from "lucide-react";
import { type FormEvent, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import { ApiProblem } from "../../api/problem";
import { usePolicies, useTraining, useTrainings } from "../../api/queries";
import type { TrainingRun } from "../../api/types";
import { Chip } from "../../components/Chip";
import { Empty, Failure, Loaded, Panel } from "../../components/Panel";
import { duration, logTime } from "../../format/time";
import { CurveChart } from "./CurveChart";
import { curveOf, isRunOpen, runLook } from "./policies";
import s from "./PoliciesPage.module.css";

const RUNS_SHOWN = 6;

/** The open run with its curves, or the form to begin one; below it the last runs. `?run=` names the one to look at. */
export function TrainingPanel({ allowed, role }: { allowed: boolean; role: string }) {
  const runs = useTrainings();
  const [search] = useSearchParams();
  const open = runs.data?.find(isRunOpen);
  const shown = search.get("run") ?? open?.id;
  return (
    <Panel title="Training" note="from the active policy, on recorded and generated traffic" flush>
      <Loaded query={runs} height={240}>
        {(rows) => (
          <>
            <div style={{ padding: "var(--s2) var(--s3) var(--s3)" }}>
              {shown ? <RunView id={shown} allowed={allowed} /> : <StartForm allowed={allowed} role={role} />}
            </div>
            <RunList rows={rows.slice(0, RUNS_SHOWN)} shown={shown} />
          </>
        )}
      </Loaded>
    </Panel>
  );
}

function RunList({ rows, shown }: { rows: TrainingRun[]; shown: string | undefined }) {
  if (rows.length === 0) {
    return (
      <div style={{ height: 90 }}>
        <Empty>
          <p>No run yet.</p>
        </Empty>
      </div>
    );
  }
  return (
    <div className={s.runs}>
      {rows.map((run) => {
        const { icon: Icon, word } = runLook(run.status);
        const title = run.result ? run.result.label : `from ${run.parent.label}`;
        return (
          <Link key={run.id} className={s.run} to={{ search: `?run=${run.id}` }} aria-current={run.id === shown || undefined} aria-label={`${title}, ${word}`}>
            <Icon size={14} aria-hidden />
            <span className="ellipsis">{title}</span>
            <span className="dim">{isRunOpen(run) ? `${Math.round(run.progress * 100)} %` : logTime(new Date(run.created_at), new Date())}</span>
          </Link>
        );
      })}
    </div>
  );
}

function RunView({ id, allowed }: { id: string; allowed: boolean }) {
  const client = useQueryClient();
  const query = useTraining(id);
  const cancel = useMutation({
    mutationFn: () => bodyOf(api.DELETE("/api/v1/training/{uid}/", { params: { path: { uid: id } } })),
    onSuccess: (run) => client.setQueryData(keys.training(id), run),
  });
  return (
    <Loaded query={query} height={220}>
      {(run) => {
        const { word, tone, icon } = runLook(run.status);
        return (
          <div className={s.progress}>
            <div className="row wrap">
              <Chip tone={tone} icon={icon}>
                {word}
              </Chip>
              <span className="small quiet">
                from {run.parent.label}, {run.trigger === "schedule" ? "by the schedule" : `by ${run.created_by}`}
              </span>
              <span className="row end">
                {isRunOpen(run) ? (
                  <Button leftSection={<Square size={12} />} loading={cancel.isPending} disabled={!allowed} onClick={() => cancel.mutate()}>
                    Cancel run
                  </Button>
                ) : (
                  <Link to={{ search: "" }} className="small">
                    New run
                  </Link>
                )}
              </span>
            </div>
            <Progress run={run} />
            {run.curve.length > 0 && (
              <>
                <CurveChart title="Mean reward" curve={curveOf(run.curve, "reward_mean")} stepsMax={run.options.steps} digits={3} />
                <CurveChart title="Loss" curve={curveOf(run.curve, "loss")} stepsMax={run.options.steps} digits={3} />
              </>
            )}
            {cancel.isError && <Failure error={cancel.error} />}
          </div>
        );
      }}
    </Loaded>
  );
}

function Progress({ run }: { run: TrainingRun }) {
  const done = Math.round(run.progress * 100);
  if (run.status === "failed") return <p style={{ color: "var(--crit)" }}>{`Stopped at ${done} %: ${run.error || "no reason was recorded"}`}</p>;
  if (run.status === "cancelled") return <p className="quiet">Cancelled at {done} %. No version came of it.</p>;
  if (run.status === "succeeded" && run.result) {
    return (
      <p>
        Became <Link to={`/policies/${run.result.digest.slice(0, 12)}?run=${run.id}`}>{run.result.label}</Link>.
      </p>
    );
  }
  return (
    <>
      <div className="row">
        <b>{done} %</b>
        <span className="quiet">{run.eta_seconds === null ? "time left not known yet" : `about ${duration(run.eta_seconds)} left`}</span>
        <span className="dim end ellipsis">{run.stage === run.status ? "" : run.stage}</span>
      </div>
      <div className={s.bar} role="progressbar" aria-valuenow={done} aria-valuemin={0} aria-valuemax={100} aria-label="Progress of the training run">
        <i style={{ width: `${done}%` }} />
      </div>
    </>
  );
}

interface Draft {
  parent: string;
  steps: number | string;
  streams: number | string;
  journals: number | string;
  evaluation_seeds: number | string;
}

const START: Draft = { parent: "", steps: 6000, streams: 8, journals: 4, evaluation_seeds: 2 };

function StartForm({ allowed, role }: { allowed: boolean; role: string }) {
  const client = useQueryClient();
  const { data: policies } = usePolicies();
  const [draft, setDraft] = useState(START);
  const start = useMutation({
    mutationFn: () =>
      bodyOf(
        api.POST("/api/v1/training/", {
          body: {
            parent: draft.parent,
            steps: Number(draft.steps),
            streams: Number(draft.streams),
            journals: Number(draft.journals),
            evaluation_seeds: Number(draft.evaluation_seeds),
          },
        }),
      ),
    onSuccess: async (run) => {
      client.setQueryData(keys.training(run.id), run);
      await client.invalidateQueries({ queryKey: keys.trainings });
    },
  });
  const problem = start.error instanceof ApiProblem ? start.error : null;
  const about = (field: string) => problem?.about(field) ?? null;
  const shared = { disabled: !allowed, hideControls: true };
  const set = (name: keyof Draft) => (value: number | string) => setDraft({ ...draft, [name]: value });
  function submit(event: FormEvent): void {
    event.preventDefault();
    start.mutate();
  }
  return (
    <form className={s.form} onSubmit={submit} noValidate>
      <Select
        label="From"
        data={[{ value: "", label: "The version that decides now" }, ...(policies ?? []).map((policy) => ({ value: policy.digest, label: policy.label }))]}
        value={draft.parent}
        onChange={(value) => setDraft({ ...draft, parent: value ?? "" })}
        disabled={!allowed}
        error={about("parent")}
      />
      <div className={s.pair}>
        <NumberInput {...shared} label="Steps" value={draft.steps} onChange={set("steps")} error={about("steps")} />
        <NumberInput {...shared} label="Generated streams" value={draft.streams} onChange={set("streams")} error={about("streams")} />
      </div>
      <div className={s.pair}>
        <NumberInput {...shared} label="Newest journals" value={draft.journals} onChange={set("journals")} error={about("journals")} />
        <NumberInput {...shared} label="Seeds to compare on" value={draft.evaluation_seeds} onChange={set("evaluation_seeds")} error={about("evaluation_seeds")} />
      </div>
      {start.isError && (problem === null || problem.errors.length === 0) && (
        <p className="small" style={{ color: "var(--crit)" }} role="alert">
          {problem?.sentence ?? "The control plane cannot be reached. No run was started."}
        </p>
      )}
      <Button type="submit" variant="filled" leftSection={<Play size={14} />} loading={start.isPending} disabled={!allowed}>
        Start training run
      </Button>
      {!allowed && <p className="tiny dim">Your role ({role || "none"}) can look but not train. Ask an operator.</p>}
    </form>
  );
}
