import { useNodeHistory } from "../../api/queries";
import type { Node } from "../../api/types";
import { RANGE_SECONDS, type Range } from "../../app/ranges";
import { latencyRange, RATIO_INCREMENTS, ratioRange } from "../../charts/scales";
import type { Span } from "../../charts/series";
import { TimeChart } from "../../charts/TimeChart";
import { Empty, Legend, Loaded, Panel } from "../../components/Panel";
import { milliseconds, percentWithSign } from "../../format/number";

interface Props {
  name: string;
  node: Node;
  range: Range;
  nowSeconds: number;
  staleSeconds: number | null;
  className: string;
}

const HEIGHT = 260;
const NO_HISTORY = (
  <Empty>
    <p>No sample of this node in this time range.</p>
  </Empty>
);

const HELD: Record<string, string> = { override: "override", pin: "pinned", recovery: "recovery", demoted: "demoted" };

/** Stretches of time in which something other than the controller set the ratio. */
export function heldSpans(at: number[], modes: (string | null)[]): Span[] {
  const spans: Span[] = [];
  let open: Span | null = null;
  at.forEach((time, index) => {
    const label = HELD[modes[index] ?? ""];
    if (open && open.label === label) {
      open.to = time;
      return;
    }
    if (open) open.to = time;
    open = label ? { from: time, to: time, color: label === "recovery" || label === "demoted" ? "warn" : "accent", label } : null;
    if (open) spans.push(open);
  });
  return spans;
}

export function RatioTimeline({ name, node, range, nowSeconds, staleSeconds, className }: Props) {
  const history = useNodeHistory(name, range);
  const rails = node.spec.guard_rails;
  return (
    <Panel
      title="EMB ratio"
      note="and where it is going"
      className={className}
      staleSeconds={staleSeconds}
      aside={
        <Legend
          entries={[
            { label: "in force", color: "emb" },
            { label: "target", color: "line-1", mark: "dash" },
            { label: "controller would choose", color: "line-3" },
          ]}
        />
      }
    >
      <Loaded query={history.query} height={HEIGHT} isEmpty={() => history.at.length === 0} empty={NO_HISTORY}>
        {() => (
          <TimeChart
            at={history.at}
            lines={[
              { label: "would choose", values: history.columns.recommended_emb_ratio ?? [], color: "line-3", width: 1.2 },
              { label: "target", values: history.columns.target_emb_ratio ?? [], color: "line-1", dash: [4, 3], step: true },
              { label: "in force", values: history.columns.emb_ratio ?? [], color: "emb", width: 2.2 },
            ]}
            references={[
              { value: rails.emb_ratio_max, label: `guard rail ${percentWithSign(rails.emb_ratio_max, 0)}`, color: "ink-3" },
              { value: rails.emb_ratio_min, label: `guard rail ${percentWithSign(rails.emb_ratio_min, 0)}`, color: "ink-3" },
            ]}
            spans={heldSpans(history.modes.at, history.modes.mode)}
            axisFormat={(value) => percentWithSign(value, 0)}
            valueFormat={(value) => percentWithSign(value)}
            range={ratioRange}
            increments={RATIO_INCREMENTS}
            window={[nowSeconds - RANGE_SECONDS[range], nowSeconds]}
            height={HEIGHT}
            syncKey={`node-${name}`}
            description={`EMB ratio of ${name} over ${range}: now ${percentWithSign(node.status.emb_ratio)}, target ${percentWithSign(node.status.target_emb_ratio)}.`}
          />
        )}
      </Loaded>
    </Panel>
  );
}

export function HistoryPanel({ name, node, range, nowSeconds, staleSeconds, className }: Props) {
  const history = useNodeHistory(name, range);
  const slo = node.status.telemetry?.slo_ms ?? null;
  return (
    <Panel
      title="Latency over time"
      note="ms"
      className={className}
      staleSeconds={staleSeconds}
      aside={
        <Legend
          entries={[
            { label: "P99", color: "line-1" },
            { label: "P50", color: "line-2" },
          ]}
        />
      }
    >
      <Loaded query={history.query} height={HEIGHT} isEmpty={() => history.at.length === 0} empty={NO_HISTORY}>
        {() => (
          <TimeChart
            at={history.at}
            lines={[
              { label: "P99", values: history.columns.latency_ms_p99 ?? [], color: "line-1", width: 1.8 },
              { label: "P50", values: history.columns.latency_ms_p50 ?? [], color: "line-2" },
            ]}
            references={slo === null ? [] : [{ value: slo, label: `SLO ${slo.toFixed(0)} ms`, color: "slo" }]}
            spans={heldSpans(history.modes.at, history.modes.mode)}
            axisFormat={(value) => value.toFixed(0)}
            valueFormat={(value) => `${milliseconds(value)} ms`}
            range={latencyRange(slo)}
            window={[nowSeconds - RANGE_SECONDS[range], nowSeconds]}
            height={HEIGHT}
            syncKey={`node-${name}`}
            description={`Latency of ${name} over ${range}: P99 now ${milliseconds(node.status.telemetry?.latency_ms_p99)} ms, SLO ${milliseconds(slo)} ms.`}
          />
        )}
      </Loaded>
    </Panel>
  );
}
