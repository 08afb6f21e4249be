import { TextInput } from "@mantine/core";
import { Search, TriangleAlert } from "lucide-react";
import { useState } from "react";
import { useSearchParams } from "react-router";
import { usePicks, useRouting } from "../../api/queries";
import type { Pick } from "../../api/types";
import { useTitle } from "../../app/useTitle";
import { Kpi, KpiStrip } from "../../components/Kpi";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { grouped, milliseconds, percent, scaled } from "../../format/number";
import { logTime } from "../../format/time";
import { AttributionPanel } from "./AttributionPanel";
import { NodesPanel } from "./NodesPanel";
import { imbalance } from "./routing";
import s from "./RoutingPage.module.css";
import { WhyPanel } from "./WhyPanel";

const HEIGHT = 380;
const NS_PER_MS = 1e6;

/** How requests find their node: the router's figures, its newest picks, and why each went where it went. */
export default function RoutingPage() {
  useTitle("Routing");
  const [search, setSearch] = useSearchParams();
  const routing = useRouting();
  const picks = usePicks();
  const chosen = search.get("pick") ?? picks.data?.[0]?.request_id ?? "";
  const choose = (requestId: string) => setSearch(requestId ? { pick: requestId } : {});
  return (
    <>
      <div className="row" style={{ minHeight: 28 }}>
        <h1>Routing</h1>
        <span className="small quiet">{routing.data ? `policy ${routing.data.router.policy}, scores in predicted milliseconds` : "scores in predicted milliseconds"}</span>
      </div>
      <Silence />
      <Summary />
      <div className={s.grid}>
        <WhyPanel requestId={chosen} className={s.wide ?? ""} aside={<PickField onChoose={choose} />} />
        <Panel title="Recent picks" note="that can be explained" className={s.narrow ?? ""} flush>
          <Loaded
            query={picks}
            height={HEIGHT}
            isEmpty={(found) => found.length === 0}
            empty={
              <Empty>
                <p>No request has been routed yet.</p>
              </Empty>
            }
          >
            {(found) => <PickTable picks={found} chosen={chosen} onChoose={choose} />}
          </Loaded>
        </Panel>
        <NodesPanel className={s.wide ?? ""} />
        <AttributionPanel className={s.narrow ?? ""} />
      </div>
    </>
  );
}

/** Said once the router has stopped answering: what stands below is what it said last. */
function Silence() {
  const { data, error, dataUpdatedAt } = useRouting();
  if (!data || !error) return null;
  return (
    <p className="row small" role="alert" style={{ color: "var(--crit)" }}>
      <TriangleAlert size={14} aria-hidden />
      The router does not answer. These are its figures of {logTime(new Date(dataUpdatedAt), new Date())}.
    </p>
  );
}

function Summary() {
  const { data, isPending } = useRouting();
  const picks = usePicks().data ?? [];
  const resident = picks.length === 0 ? null : picks.filter((pick) => pick.cached_tokens > 0).length / picks.length;
  const total = data?.attribution.components.find((entry) => entry.component === "total");
  const [rate, prefix] = scaled(data?.router.picks_per_second);
  const shared = { loading: isPending };
  return (
    <KpiStrip columns={6}>
      <Kpi {...shared} label="Routed" value={rate} unit={`${prefix} req/s`.trim()} context={`${grouped(data?.router.in_flight)} in flight`} />
      <Kpi {...shared} label="To a node holding the prefix" swatch="kv" value={percent(resident)} unit="%" context={`of the newest ${picks.length} picks`} />
      <Kpi {...shared} label="Retried" value={grouped(data?.router.retries_total)} context={`${grouped(data?.router.failures_total)} failed`} />
      <Kpi {...shared} label="Busiest node" value={imbalance(data?.nodes ?? [])?.toFixed(2) ?? "n/a"} unit="x mean" context="of all picks" />
      <Kpi {...shared} label="P99 through the router" value={milliseconds(data?.router.latency_ms_p99)} unit="ms" context={`P50 ${milliseconds(data?.router.latency_ms_p50)} ms`} />
      <Kpi {...shared} label="Prediction off by" value={milliseconds(total?.error_ms)} unit="ms" context={`mean of ${grouped(data?.attribution.count)} answers`} />
    </KpiStrip>
  );
}

function PickField({ onChoose }: { onChoose: (requestId: string) => void }) {
  const [text, setText] = useState("");
  return (
    <form
      className="end"
      onSubmit={(event) => {
        event.preventDefault();
        onChoose(text.trim());
      }}
    >
      <TextInput leftSection={<Search size={14} />} placeholder="Request id" aria-label="Explain a request by its id" w={220} value={text} onChange={(event) => setText(event.currentTarget.value)} />
    </form>
  );
}

function PickTable({ picks, chosen, onChoose }: { picks: Pick[]; chosen: string; onChoose: (requestId: string) => void }) {
  return (
    <div className="scroll-x" style={{ height: HEIGHT }}>
      <table className="data-table">
        <thead>
          <tr>
            <th>Time (UTC)</th>
            <th>Node</th>
            <th className="num">Predicted, ms</th>
            <th className="num">Observed, ms</th>
          </tr>
        </thead>
        <tbody>
          {picks.map((pick) => (
            <tr key={pick.request_id} aria-selected={pick.request_id === chosen} onClick={() => onChoose(pick.request_id)} style={{ cursor: "pointer" }}>
              <td>
                <button type="button" className={s.open} title={pick.request_id} aria-expanded={pick.request_id === chosen}>
                  {logTime(new Date(pick.at_unix_ns / NS_PER_MS), new Date())}
                </button>
              </td>
              <td className="mono">{pick.picked ?? "none"}</td>
              <td className="num">{milliseconds(pick.predicted_ms)}</td>
              <td className="num">{milliseconds(pick.observed?.total)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
