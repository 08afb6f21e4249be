import { useFleet, useFleetHistory } from "../../api/queries";
import { RANGE_SECONDS, type Range } from "../../app/ranges";
import { latencyRange, RATIO_INCREMENTS, ratioRange } from "../../charts/scales";
import { TimeChart } from "../../charts/TimeChart";
import { Empty, Legend, Loaded, Panel } from "../../components/Panel";
import { milliseconds, percentWithSign } from "../../format/number";

export const CHART_HEIGHT = 212;

interface Props {
  range: Range;
  nowSeconds: number;
  staleSeconds: number | null;
}

const NO_HISTORY = (
  <Empty>
    <p>No sample in this time range yet. The first one comes a second after a node connects.</p>
  </Empty>
);

export function LatencyPanel({ range, nowSeconds, staleSeconds }: Props) {
  const { data: fleet } = useFleet();
  const history = useFleetHistory(range);
  const slo = fleet?.slo_ms ?? history.query.data?.slo_ms ?? null;
  const p99 = history.columns.latency_ms_p99 ?? [];
  const over = p99.map((value) => (value === null || slo === null ? null : Math.max(value, slo)));
  return (
    <Panel
      title="P99 latency vs SLO"
      note="ms"
      staleSeconds={staleSeconds}
      aside={
        <Legend
          entries={[
            { label: "P99", color: "line-1" },
            { label: "P50", color: "line-2" },
            { label: "over SLO", color: "crit", mark: "area", opacity: 0.35 },
          ]}
        />
      }
    >
      <Loaded query={history.query} height={CHART_HEIGHT} isEmpty={() => history.at.length === 0} empty={NO_HISTORY}>
        {() => (
          <TimeChart
            at={history.at}
            lines={[
              { label: "over", values: over, color: "crit", hidden: true },
              { label: "slo", values: over.map((value) => (value === null ? null : slo)), color: "crit", hidden: true },
              { label: "P99", values: p99, color: "line-1", width: 1.8 },
              { label: "P50", values: history.columns.latency_ms_p50 ?? [], color: "line-2" },
            ]}
            bands={[{ upper: "over", lower: "slo", color: "crit", opacity: 0.3 }]}
            references={slo === null ? [] : [{ value: slo, label: `SLO ${slo.toFixed(0)} ms`, color: "slo" }]}
            axisFormat={(value) => value.toFixed(0)}
            valueFormat={(value) => `${milliseconds(value)} ms`}
            range={latencyRange(slo)}
            window={[nowSeconds - RANGE_SECONDS[range], nowSeconds]}
            height={CHART_HEIGHT}
            syncKey="fleet"
            description={`Fleet P99 over ${range}, now ${milliseconds(fleet?.latency_ms_p99)} ms, SLO ${milliseconds(slo)} ms.`}
          />
        )}
      </Loaded>
    </Panel>
  );
}

export function RatioPanel({ range, nowSeconds, staleSeconds }: Props) {
  const { data: fleet } = useFleet();
  const history = useFleetHistory(range);
  const band = (name: string) => history.columns[name] ?? [];
  return (
    <Panel
      title="EMB ratio across fleet"
      note={fleet ? `${fleet.nodes_ready} reporting` : undefined}
      staleSeconds={staleSeconds}
      aside={
        <Legend
          entries={[
            { label: "median", color: "emb" },
            { label: "p25–p75", color: "emb", mark: "area", opacity: 0.45 },
            { label: "p10–p90", color: "emb", mark: "area", opacity: 0.22 },
          ]}
        />
      }
    >
      <Loaded query={history.query} height={CHART_HEIGHT} isEmpty={() => history.at.length === 0} empty={NO_HISTORY}>
        {() => (
          <TimeChart
            at={history.at}
            lines={[
              { label: "p90", values: band("emb_ratio_p90"), color: "emb", hidden: true },
              { label: "p75", values: band("emb_ratio_p75"), color: "emb", hidden: true },
              { label: "median", values: band("emb_ratio_p50"), color: "emb", width: 1.8 },
              { label: "p25", values: band("emb_ratio_p25"), color: "emb", hidden: true },
              { label: "p10", values: band("emb_ratio_p10"), color: "emb", hidden: true },
            ]}
            bands={[
              { upper: "p90", lower: "p10", color: "emb", opacity: 0.16 },
              { upper: "p75", lower: "p25", color: "emb", opacity: 0.24 },
            ]}
            axisFormat={(value) => percentWithSign(value, 0)}
            valueFormat={(value) => percentWithSign(value)}
            range={ratioRange}
            increments={RATIO_INCREMENTS}
            window={[nowSeconds - RANGE_SECONDS[range], nowSeconds]}
            height={CHART_HEIGHT}
            syncKey="fleet"
            description={`EMB ratio of the fleet over ${range}, mean now ${percentWithSign(fleet?.emb_ratio_mean)}.`}
          />
        )}
      </Loaded>
    </Panel>
  );
}
