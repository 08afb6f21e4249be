import { useNodeHistory } from "../../api/queries";
import type { Node } from "../../api/types";
import type { Range } from "../../app/ranges";
import { Kpi, KpiStrip } from "../../components/Kpi";
import { grouped, milliseconds, percent, scaled } from "../../format/number";
import { isOverSlo } from "../fleet/nodeFilter";

/** The node in eight numbers, as it last reported them. */
export function NodeSummary({ node, range, staleSeconds }: { node: Node; range: Range; staleSeconds: number | null }) {
  const telemetry = node.status.telemetry;
  const history = useNodeHistory(node.metadata.name, range);
  const age = node.status.phase === "offline" ? node.status.age_seconds : staleSeconds;
  const [rate, prefix] = scaled(telemetry?.requests_per_second);
  const shared = { staleSeconds: age };
  return (
    <KpiStrip columns={8} compact>
      <Kpi {...shared} label="P99" value={milliseconds(telemetry?.latency_ms_p99)} unit="ms" critical={isOverSlo(node)} trend={history.columns.latency_ms_p99 ?? []} reference={telemetry?.slo_ms ?? null} />
      <Kpi {...shared} label="P50" value={milliseconds(telemetry?.latency_ms_p50)} unit="ms" trend={history.columns.latency_ms_p50 ?? []} />
      <Kpi {...shared} label="Queue" value={grouped(telemetry?.queue_depth)} trend={history.columns.queue_depth ?? []} />
      <Kpi {...shared} label="Throughput" value={rate} unit={`${prefix} req/s`.trim()} trend={history.columns.requests_per_second ?? []} />
      <Kpi {...shared} label="EMB share" swatch="emb" value={percent(node.status.emb_ratio)} unit="%" trend={history.columns.emb_ratio ?? []} />
      <Kpi {...shared} label="Target" value={percent(node.status.target_emb_ratio)} unit="% EMB" trend={history.columns.target_emb_ratio ?? []} />
      <Kpi {...shared} label="EMB hit" swatch="emb" value={percent(telemetry?.emb_hit_ratio)} unit="%" trend={history.columns.emb_hit_ratio ?? []} />
      <Kpi {...shared} label="KV hit" swatch="kv" value={percent(telemetry?.kv_hit_ratio)} unit="%" trend={history.columns.kv_hit_ratio ?? []} />
    </KpiStrip>
  );
}
