import { useElementSize } from "@mantine/hooks";
import type { Node } from "../../api/types";
import { Legend, Panel } from "../../components/Panel";
import { percentWithSign } from "../../format/number";
import { curve, labelRows, type LandscapePoint } from "./landscape";
import s from "./LandscapePanel.module.css";

/** Never lower than this; beside a taller neighbour it grows. */
const HEIGHT_MIN = 280;
/** Of a mark's label; beside the right edge it stands on the other side of its line. */
const LABEL_WIDTH_PX = 84;
const MARGIN = { top: 16, right: 10, bottom: 24, left: 40 };

/** The node's own prediction (`rows`, at least two): latency over the whole range of splits, and where it stands on it. */
export function LandscapePanel({ node, rows, className }: { node: Node; rows: LandscapePoint[]; className: string }) {
  const { ref, width, height: room } = useElementSize();
  const height = Math.max(HEIGHT_MIN, Math.floor(room));
  return (
    <Panel
      title="Ratio landscape"
      note="predicted, ms"
      className={className}
      aside={
        <Legend
          entries={[
            { label: "P99", color: "line-1" },
            { label: "mean", color: "line-2" },
            { label: "95 % of the mean", color: "band", mark: "area", opacity: 0.35 },
          ]}
        />
      }
    >
      <div ref={ref} className={s.room} style={{ minHeight: HEIGHT_MIN }}>
        {width > 0 && <Curve node={node} rows={rows} width={width} height={height} />}
      </div>
    </Panel>
  );
}

function Curve({ node, rows, width, height }: { node: Node; rows: LandscapePoint[]; width: number; height: number }) {
  const frame = { left: MARGIN.left, top: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: height - MARGIN.top - MARGIN.bottom };
  const sloMs = node.status.telemetry?.slo_ms ?? null;
  const drawn = curve(rows, frame, sloMs);
  const rails = node.spec.guard_rails;
  const best = rows.reduce((lowest, row) => (row.p99 < lowest.p99 ? row : lowest));
  const marks = [
    { ratio: node.status.emb_ratio, label: "now", color: "emb" },
    { ratio: node.status.target_emb_ratio, label: "target", color: "accent" },
    { ratio: best.ratio, label: "lowest", color: "ink-3" },
  ].filter((mark) => mark.ratio !== null) as { ratio: number; label: string; color: string }[];
  const right = frame.left + frame.width;
  const labelsY = labelRows(marks.length, frame.top, sloMs === null ? null : drawn.y(sloMs));
  return (
    <svg
      width={width}
      height={height}
      className={s.svg}
      role="img"
      aria-label={`Predicted P99 over the EMB share: lowest ${best.p99.toFixed(1)} ms at ${percentWithSign(best.ratio, 0)}, now at ${percentWithSign(node.status.emb_ratio, 0)}.`}
    >
      {drawn.ticksY.map((tick) => (
        <g key={tick}>
          <path d={`M${frame.left} ${drawn.y(tick)}H${right}`} stroke="var(--grid)" />
          <text x={frame.left - 6} y={drawn.y(tick) + 4} textAnchor="end">
            {tick}
          </text>
        </g>
      ))}
      {drawn.ticksX.map((tick) => (
        <text key={tick} x={drawn.x(tick)} y={height - 6} textAnchor="middle">
          {percentWithSign(tick, 0)}
        </text>
      ))}
      <rect x={frame.left} y={frame.top} width={Math.max(0, drawn.x(rails.emb_ratio_min) - frame.left)} height={frame.height} className={s.blocked} />
      <rect x={drawn.x(rails.emb_ratio_max)} y={frame.top} width={Math.max(0, right - drawn.x(rails.emb_ratio_max))} height={frame.height} className={s.blocked} />
      <path d={drawn.band} fill="var(--band)" opacity={0.22} />
      {sloMs !== null && (
        <>
          <path d={`M${frame.left} ${drawn.y(sloMs)}H${right}`} stroke="var(--slo)" strokeDasharray="4 3" />
          <text x={right - 4} y={drawn.y(sloMs) - 5} textAnchor="end" style={{ fill: "var(--slo)" }}>
            SLO {sloMs.toFixed(0)} ms
          </text>
        </>
      )}
      <path d={drawn.mean} fill="none" stroke="var(--line-2)" strokeWidth={1.5} />
      <path d={drawn.line} fill="none" stroke="var(--line-1)" strokeWidth={1.8} />
      {marks.map((mark, index) => (
        <g key={mark.label}>
          <path d={`M${drawn.x(mark.ratio)} ${frame.top}V${frame.top + frame.height}`} stroke={`var(--${mark.color})`} strokeDasharray={mark.label === "now" ? undefined : "3 3"} />
          <text
            {...(drawn.x(mark.ratio) + LABEL_WIDTH_PX > right ? { x: drawn.x(mark.ratio) - 4, textAnchor: "end" as const } : { x: drawn.x(mark.ratio) + 4 })}
            y={labelsY[index]}
            style={{ fill: `var(--${mark.color === "emb" ? "emb-ink" : mark.color})` }}
          >
            {mark.label} {percentWithSign(mark.ratio, 1)}
          </text>
        </g>
      ))}
    </svg>
  );
}
