import { useFleet, useFleetHistory } from "../../api/queries";
import type { Fleet } from "../../api/types";
import { SloChip, WarnChip } from "../../components/Chip";
import { Kpi, KpiStrip } from "../../components/Kpi";
import { milliseconds, percent, scaled } from "../../format/number";
import type { Range } from "../../app/ranges";

/** Whether requests are answered, but too few in the last minute to tell one in a hundred: the control plane says no P99 under 300. */
export function awaitsTail(fleet: Pick<Fleet, "latency_ms_p50" | "latency_ms_p99">): boolean {
  return fleet.latency_ms_p50 !== null && fleet.latency_ms_p99 === null;
}

/** The fleet in eight numbers. */
export function FleetKpis({ range, staleSeconds }: { range: Range; staleSeconds: number | null }) {
  const { data: fleet, isPending } = useFleet();
  const history = useFleetHistory(range);
  const trend = (name: keyof typeof history.columns) => history.columns[name] ?? [];
  const [rate, prefix] = scaled(fleet?.requests_per_second);
  const over = fleet?.latency_ms_p99 != null && fleet.slo_ms != null && fleet.latency_ms_p99 > fleet.slo_ms;
  const shared = { loading: isPending, staleSeconds };
  return (
    <KpiStrip columns={8}>
      <Kpi
        {...shared}
        label="P99 latency"
        value={milliseconds(fleet?.latency_ms_p99)}
        unit="ms"
        critical={over}
        context={fleet && awaitsTail(fleet) ? "needs 300 requests" : <SloChip latencyMs={fleet?.latency_ms_p99} sloMs={fleet?.slo_ms} />}
        trend={trend("latency_ms_p99")}
        reference={fleet?.slo_ms ?? null}
      />
      <Kpi {...shared} label="P50 latency" value={milliseconds(fleet?.latency_ms_p50)} unit="ms" context="half of all requests" trend={trend("latency_ms_p50")} />
      <Kpi {...shared} label="Under SLO" value={percent(fleet?.slo_ratio, 2)} unit="%" context="of requests, last minute" />
      <Kpi {...shared} label="Throughput" value={rate} unit={`${prefix} req/s`.trim()} context="answered" trend={trend("requests_per_second")} />
      <Kpi {...shared} label="EMB hit" swatch="emb" value={percent(fleet?.emb_hit_ratio)} unit="%" context="rows found in HBM" trend={trend("emb_hit_ratio")} />
      <Kpi {...shared} label="KV hit" swatch="kv" value={percent(fleet?.kv_hit_ratio)} unit="%" context="requests with a kept prefix" trend={trend("kv_hit_ratio")} />
      <Kpi {...shared} label="EMB ratio" value={percent(fleet?.emb_ratio_mean)} unit="%" context="mean of the fleet" trend={trend("emb_ratio_p50")} />
      <Kpi
        {...shared}
        label="Nodes ready"
        value={fleet ? String(fleet.nodes_ready) : "n/a"}
        unit={fleet ? `of ${fleet.nodes_total}` : ""}
        context={fleet && fleet.nodes_offline > 0 ? <WarnChip>{fleet.nodes_offline} offline</WarnChip> : "all reachable"}
      />
    </KpiStrip>
  );
}
