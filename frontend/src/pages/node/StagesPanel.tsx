import type { Node, Series } from "../../api/types";
import { useNodeHistory } from "../../api/queries";
import { RANGE_SECONDS, type Range } from "../../app/ranges";
import { countRange } from "../../charts/scales";
import { TimeChart } from "../../charts/TimeChart";
import { Chip } from "../../components/Chip";
import { Empty, Panel } from "../../components/Panel";
import { grouped, milliseconds, percentWithSign } from "../../format/number";
import { TableHits } from "./TableHits";
import s from "./StagesPanel.module.css";

const STAGES = [
  { key: "queue_ms", label: "Queue", color: "line-2" },
  { key: "emb_ms", label: "EMB look-up and misses", color: "emb" },
  { key: "kv_ms", label: "KV prefix read", color: "kv" },
  { key: "compute_ms", label: "Compute", color: "line-3" },
] as const;

interface Props {
  node: Node;
  range: Range;
  nowSeconds: number;
  className: string;
}

const CHART_HEIGHT = 150;

/** Each stage on top of those before it, so that the upper edge is the whole request. */
export function stacked(columns: Series[]): Series[] {
  const sums: Series[] = [];
  columns.forEach((column, level) => {
    sums.push(column.map((value, index) => (value === null ? null : value + (level === 0 ? 0 : (sums[level - 1]?.[index] ?? 0)))));
  });
  return sums;
}

function StageHistory({ node, range, nowSeconds }: Omit<Props, "className">) {
  const history = useNodeHistory(node.metadata.name, range);
  const sums = stacked(STAGES.map((stage) => history.columns[stage.key] ?? []));
  const lines = STAGES.map((stage, level) => ({ label: stage.label, values: sums[level] ?? [], color: stage.color, width: 1, fill: level === 0 ? 0.5 : 0 }));
  const bands = STAGES.slice(1).map((stage, index) => ({ upper: stage.label, lower: STAGES[index]?.label ?? "", color: stage.color, opacity: 0.5 }));
  return (
    <TimeChart
      at={history.at}
      lines={lines}
      bands={bands}
      axisFormat={(value) => value.toFixed(0)}
      valueFormat={(value) => `up to ${milliseconds(value)} ms`}
      range={countRange}
      window={[nowSeconds - RANGE_SECONDS[range], nowSeconds]}
      height={CHART_HEIGHT}
      syncKey={`node-${node.metadata.name}`}
      description={`Mean time per request by stage over ${range}.`}
    />
  );
}

/** Where the mean request spends its time, stage by stage. */
export function StagesPanel({ node, range, nowSeconds, className }: Props) {
  const telemetry = node.status.telemetry;
  const total = telemetry ? STAGES.reduce((sum, stage) => sum + telemetry.stages[stage.key], 0) : 0;
  if (!telemetry || total <= 0) {
    return (
      <Panel title="Latency by stage" className={className}>
        <Empty>
          <p>No request has been answered yet.</p>
        </Empty>
      </Panel>
    );
  }
  const reasons = Object.entries(telemetry.miss_reasons).filter(([reason, count]) => count > 0 && reason !== "hit");
  const label = STAGES.map((stage) => `${stage.label} ${milliseconds(telemetry.stages[stage.key])} ms`).join(", ");
  return (
    <Panel title="Latency by stage" note={`mean ${milliseconds(total)} ms per request`} className={className}>
      <div className={s.bar} role="img" aria-label={label}>
        {STAGES.map((stage) => (
          <i key={stage.key} style={{ background: `var(--${stage.color})`, width: `${(telemetry.stages[stage.key] / total) * 100}%` }} />
        ))}
      </div>
      <table className="data-table" style={{ marginTop: 8 }}>
        <tbody>
          {STAGES.map((stage) => (
            <tr key={stage.key}>
              <td>
                <i className={s.swatch} style={{ background: `var(--${stage.color})` }} />
                {stage.label}
              </td>
              <td className="num">{milliseconds(telemetry.stages[stage.key])} ms</td>
              <td className="num dim">{percentWithSign(telemetry.stages[stage.key] / total, 0)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <StageHistory node={node} range={range} nowSeconds={nowSeconds} />
      <div className={s.reasons}>
        <h3>Why KV missed</h3>
        <div className={s.chips}>
          {reasons.length === 0 && <span className="small dim">No miss counted.</span>}
          {reasons.map(([reason, count]) => (
            <Chip key={reason}>
              {reason.replaceAll("_", " ")} {grouped(count)}
            </Chip>
          ))}
        </div>
      </div>
      <TableHits telemetry={telemetry} />
    </Panel>
  );
}
