import { OctagonAlert } from "lucide-react";
import { Link } from "react-router";
import type { Node } from "../../api/types";
import { EmulatedChip, ModeBadge } from "../../components/Chip";
import { SplitBar } from "../../components/SplitBar";
import { grouped, milliseconds, percent } from "../../format/number";
import { duration } from "../../format/time";
import { isOverSlo, modeOf } from "./nodeFilter";
import { overrideLeft } from "./NodeTile";

/** The same nodes with every number; the accessible equivalent of the tiles. */
export function NodeTable({ nodes, search }: { nodes: Node[]; search: string }) {
  return (
    <div className="scroll-x">
      <table className="data-table">
        <thead>
          <tr>
            <th>Node</th>
            <th>Mode</th>
            <th className="num">Time left</th>
            <th className="num">P99 ms</th>
            <th className="num">P50 ms</th>
            <th className="num">SLO ms</th>
            <th style={{ minWidth: 100 }}>Split</th>
            <th className="num">EMB %</th>
            <th className="num">EMB hit %</th>
            <th className="num">KV hit %</th>
            <th className="num">Req/s</th>
            <th className="num">Queue</th>
            <th>Device</th>
          </tr>
        </thead>
        <tbody>
          {nodes.map((node) => (
            <Row key={node.metadata.name} node={node} search={search} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ node, search }: { node: Node; search: string }) {
  const telemetry = node.status.telemetry;
  const left = overrideLeft(node);
  return (
    <tr>
      <td>
        <Link className="mono" to={{ pathname: `/nodes/${encodeURIComponent(node.metadata.name)}`, search }}>
          {node.metadata.name}
        </Link>
      </td>
      <td>
        <ModeBadge mode={modeOf(node)} plain />
      </td>
      <td className="num">{left === null ? "" : duration(left)}</td>
      <td className="num" style={isOverSlo(node) ? { color: "var(--crit)", fontWeight: 600 } : undefined}>
        {isOverSlo(node) && <OctagonAlert size={12} aria-label="over SLO" style={{ marginRight: 4, verticalAlign: "-1px" }} />}
        {milliseconds(telemetry?.latency_ms_p99)}
      </td>
      <td className="num">{milliseconds(telemetry?.latency_ms_p50)}</td>
      <td className="num">{milliseconds(telemetry?.slo_ms)}</td>
      <td>
        <SplitBar embRatio={node.status.phase === "offline" ? null : node.status.emb_ratio} />
      </td>
      <td className="num">{percent(node.status.emb_ratio)}</td>
      <td className="num">{percent(telemetry?.emb_hit_ratio)}</td>
      <td className="num">{percent(telemetry?.kv_hit_ratio)}</td>
      <td className="num">{grouped(telemetry?.requests_per_second)}</td>
      <td className="num">{grouped(telemetry?.queue_depth)}</td>
      <td>{telemetry?.emulated ? <EmulatedChip plain /> : (telemetry?.device ?? "")}</td>
    </tr>
  );
}
