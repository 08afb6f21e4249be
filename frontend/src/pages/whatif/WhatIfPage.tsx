import { Button } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { CircleCheck, CircleX, Clock, Copy, RefreshCw, Square } from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import { isOpen, useMe, useWhatIf, useWhatIfs } from "../../api/queries";
import type { WhatIf } from "../../api/types";
import { useTitle } from "../../app/useTitle";
import { Chip, type Tone } from "../../components/Chip";
import { Empty, Failure, Loaded, Panel } from "../../components/Panel";
import { duration, logTime } from "../../format/time";
import { ScenarioForm } from "./ScenarioForm";
import { type Draft, draftOf, START, titleOf } from "./scenario";
import { SummaryTable } from "./SummaryTable";
import { belief, bestStatic, finding } from "./summary";
import s from "./WhatIfPage.module.css";

const ResultFigure = lazy(() => import("./ResultFigure"));
const FIGURE_HEIGHT = 780;

const LOOKS: Record<string, { word: string; tone: Tone; icon: typeof Clock }> = {
  queued: { word: "Queued", tone: "neutral", icon: Clock },
  running: { word: "Running", tone: "accent", icon: RefreshCw },
  succeeded: { word: "Done", tone: "ok", icon: CircleCheck },
  failed: { word: "Failed", tone: "crit", icon: CircleX },
  cancelled: { word: "Cancelled", tone: "neutral", icon: Square },
};

function lookOf(status: string) {
  return LOOKS[status] ?? { word: status, tone: "neutral" as Tone, icon: Clock };
}

/** Ask the simulator; it never touches live nodes. */
export default function WhatIfPage() {
  const { id } = useParams();
  const [draft, setDraft] = useState<Draft>(START);
  const runs = useWhatIfs();
  const { data: me } = useMe();
  const allowed = me?.permissions.includes("whatif.run") ?? false;
  const shown = id ?? runs.data?.[0]?.id;
  useTitle("What-if");
  return (
    <>
      <div className={s.head}>
        <h1>What-if</h1>
        <span className="small quiet">runs the same decision code on simulated nodes; never touches live ones</span>
      </div>
      <div className={s.layout}>
        <div className={s.column}>
          <Panel title="Scenario">
            <ScenarioForm draft={draft} onChange={setDraft} allowed={allowed} role={me?.role ?? ""} />
          </Panel>
          <RunList shown={shown} />
        </div>
        <div className={s.column}>
          {shown ? (
            <RunView key={shown} id={shown} allowed={allowed} onDuplicate={(run) => setDraft(draftOf(run))} />
          ) : (
            <Panel title="Result">
              <div style={{ height: 320 }}>
                <Empty>
                  <p>No run yet. Choose a workload and two fixed ratios; the controller is run on the same requests.</p>
                </Empty>
              </div>
            </Panel>
          )}
        </div>
      </div>
    </>
  );
}

function RunList({ shown }: { shown: string | undefined }) {
  const runs = useWhatIfs();
  return (
    <Panel title="Runs" note={runs.data ? String(runs.data.length) : undefined} flush>
      <Loaded
        query={runs}
        height={160}
        isEmpty={(rows) => rows.length === 0}
        empty={
          <Empty>
            <p>Runs are kept here, with what was asked.</p>
          </Empty>
        }
      >
        {(rows) => (
          <div className={s.runs}>
            {rows.map((run) => (
              <RunRow key={run.id} run={run} current={run.id === shown} />
            ))}
          </div>
        )}
      </Loaded>
    </Panel>
  );
}

function RunRow({ run, current }: { run: WhatIf; current: boolean }) {
  const { icon: Icon, word } = lookOf(run.status);
  return (
    <Link className={s.run} to={`/whatifs/${run.id}`} aria-current={current || undefined} aria-label={`${titleOf(run)}, ${word}`}>
      <Icon size={14} aria-hidden />
      <span className="ellipsis">{titleOf(run)}</span>
      <span className="dim">{isOpen(run) ? `${Math.round(run.progress * 100)} %` : logTime(new Date(run.created_at), new Date())}</span>
    </Link>
  );
}

function RunView({ id, allowed, onDuplicate }: { id: string; allowed: boolean; onDuplicate: (run: WhatIf) => void }) {
  const query = useWhatIf(id);
  return (
    <Loaded query={query} height={320}>
      {(run) => (
        <div className={s.column}>
          <RunBar run={run} allowed={allowed} onDuplicate={() => onDuplicate(run)} />
          {run.status === "succeeded" && run.result && <Result run={run} />}
        </div>
      )}
    </Loaded>
  );
}

function tookSeconds(run: WhatIf): number | null {
  if (!run.started_at || !run.finished_at) return null;
  return (Date.parse(run.finished_at) - Date.parse(run.started_at)) / 1000;
}

function RunBar({ run, allowed, onDuplicate }: { run: WhatIf; allowed: boolean; onDuplicate: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const cancel = useMutation({
    mutationFn: () => bodyOf(api.DELETE("/api/v1/whatifs/{uid}/", { params: { path: { uid: run.id } } })),
    onSuccess: (cancelled) => client.setQueryData(keys.whatif(run.id), cancelled),
  });
  const { word, tone, icon } = lookOf(run.status);
  const { scenario } = run;
  return (
    <Panel
      title={titleOf(run)}
      note={`fixed ${scenario.static_ratios.map((ratio) => `${Math.round(ratio * 100)} %`).join(" and ")} against the controller, seed ${scenario.seed}, ${duration(scenario.duration_seconds)} simulated`}
      aside={
        <span className="row end wrap">
          <Chip tone={tone} icon={icon}>
            {word}
          </Chip>
          <Button leftSection={<Copy size={14} />} onClick={onDuplicate}>
            Duplicate
          </Button>
          {isOpen(run) && (
            <Button
              leftSection={<Square size={12} />}
              loading={cancel.isPending}
              disabled={!allowed}
              title={allowed ? undefined : "Your role can look but not cancel."}
              onClick={() => cancel.mutate()}
            >
              Cancel run
            </Button>
          )}
          {!isOpen(run) && run.status === "succeeded" && (
            <Button onClick={() => void navigate(applyTarget(run))}>Try on a node</Button>
          )}
        </span>
      }
    >
      <Progress run={run} />
      {cancel.isError && <Failure error={cancel.error} />}
    </Panel>
  );
}

/** The override form of a node, with the better fixed ratio filled in; nothing is sent. */
function applyTarget(run: WhatIf): string {
  const better = bestStatic(run.result?.runs ?? []);
  const place = (run.result?.runs ?? []).filter((entry) => entry.method.startsWith("static")).findIndex((entry) => entry === better);
  return `/nodes?ratio=${run.scenario.static_ratios[Math.max(place, 0)] ?? 0.5}`;
}

function Progress({ run }: { run: WhatIf }) {
  if (run.status === "failed") return <p style={{ color: "var(--crit)" }}>{`Stopped at ${Math.round(run.progress * 100)} %: ${run.error || "no reason was recorded"}`}</p>;
  if (run.status === "cancelled") return <p className="quiet">Cancelled at {Math.round(run.progress * 100)} %. Nothing was kept.</p>;
  if (run.status === "succeeded") {
    return (
      <p className="quiet">
        {run.result ? (finding(run.result.runs) ?? "Finished.") : "Finished."} <span className="dim">Took {duration(tookSeconds(run))}, asked by {run.created_by}.</span>
      </p>
    );
  }
  const done = Math.round(run.progress * 100);
  return (
    <div className={s.progress}>
      <div className="row">
        <b>{done} %</b>
        <span className="quiet">{run.eta_seconds === null ? "time left not known yet" : `about ${duration(run.eta_seconds)} left`}</span>
        <span className="dim end">{run.stage === run.status ? "" : run.stage}</span>
      </div>
      <div className={s.bar} role="progressbar" aria-valuenow={done} aria-valuemin={0} aria-valuemax={100} aria-label="Progress of the run">
        <i style={{ width: `${done}%` }} />
      </div>
    </div>
  );
}

/** How near the simulator was to a live run, and why this question lies outside of that, if it does. */
function Belief({ run }: { run: WhatIf }) {
  const validation = run.result?.validation;
  const sentence = belief(validation);
  if (!validation || sentence === null) return null;
  const outside = validation.measured ? validation.outside : [];
  return (
    <p className="small quiet" style={{ padding: "8px 12px" }} data-testid="whatif-validation">
      {sentence}{" "}
      {outside.length > 0 && <span style={{ color: "var(--warn)" }}>Outside of what was measured: {outside.join("; ")}.</span>}
    </p>
  );
}

function seedsOf(run: WhatIf): string {
  const count = run.scenario.seeds ?? 1;
  return count === 1 ? "one seed" : `medians of ${count} seeds`;
}

function Result({ run }: { run: WhatIf }) {
  return (
    <>
      <Panel title="Summary" note={`${seedsOf(run)}; change against the better fixed ratio`} flush>
        <SummaryTable runs={run.result?.runs ?? []} />
        <Belief run={run} />
      </Panel>
      <Panel title="Over simulated time">
        <Suspense fallback={<div style={{ height: FIGURE_HEIGHT }} />}>
          <ResultFigure id={run.id} height={FIGURE_HEIGHT} />
        </Suspense>
      </Panel>
    </>
  );
}
