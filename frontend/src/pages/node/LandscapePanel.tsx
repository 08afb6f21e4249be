import { useElementSize } from "@mantine/hooks";
import type { Node } from "../../api/types";
import { Empty, Legend, Panel } from "../../components/Panel";
import { percentWithSign } from "../../format/number";
import { curve, type LandscapePoint, points } from "./landscape";
import s from "./LandscapePanel.module.css";

const HEIGHT = 280;
const MARGIN = { top: 16, right: 10, bottom: 24, left: 40 };

/** The node's own prediction: latency over the whole range of splits, and where it stands on it. */
export function LandscapePanel({ node, className }: { node: Node; className: string }) {
  const { ref, width } = useElementSize();
  const telemetry = node.status.telemetry;
  const rows = points(telemetry?.landscape ?? []);
  return (
    <Panel
      title="Ratio landscape"
      note="predicted, ms"
      className={className}
      aside={
        <Legend
          entries={[
            { label: "P99", color: "line-1" },
            { label: "interval", color: "band", mark: "area", opacity: 0.35 },
          ]}
        />
      }
    >
      <div ref={ref} style={{ minHeight: HEIGHT }}>
        {rows.length < 2 ? (
          <div style={{ height: HEIGHT }}>
            <Empty>
              <p>No prediction yet. The node draws its curve after some minutes of traffic.</p>
            </Empty>
          </div>
        ) : (
          width > 0 && <Curve node={node} rows={rows} width={width} />
        )}
      </div>
    </Panel>
  );
}

function Curve({ node, rows, width }: { node: Node; rows: LandscapePoint[]; width: number }) {
  const frame = { left: MARGIN.left, top: MARGIN.top, width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
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
  return (
    <svg
      width={width}
      height={HEIGHT}
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
        <text key={tick} x={drawn.x(tick)} y={HEIGHT - 6} textAnchor="middle">
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
      <path d={drawn.line} fill="none" stroke="var(--line-1)" strokeWidth={1.8} />
      {marks.map((mark, index) => (
        <g key={mark.label}>
          <path d={`M${drawn.x(mark.ratio)} ${frame.top}V${frame.top + frame.height}`} stroke={`var(--${mark.color})`} strokeDasharray={mark.label === "now" ? undefined : "3 3"} />
          <text x={drawn.x(mark.ratio) + 4} y={frame.top + 10 + index * 13} style={{ fill: `var(--${mark.color === "emb" ? "emb-ink" : mark.color})` }}>
            {mark.label} {percentWithSign(mark.ratio, 1)}
          </text>
        </g>
      ))}
    </svg>
  );
}
