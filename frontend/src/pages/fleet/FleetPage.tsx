import { Link } from "react-router";
import { useFleet, useNodes } from "../../api/queries";
import { RangePicker } from "../../app/RangePicker";
import { useRange } from "../../app/ranges";
import { useNow } from "../../app/useNow";
import { useTitle } from "../../app/useTitle";
import { ModeBadge } from "../../components/Chip";
import { Loaded, Panel } from "../../components/Panel";
import { useStaleSeconds } from "../../live/LiveProvider";
import { EventFeed } from "./EventFeed";
import { FirstRun } from "./FirstRun";
import { LatencyPanel, RatioPanel } from "./FleetCharts";
import { FleetKpis } from "./FleetKpis";
import { NodeGrid } from "./NodeGrid";
import s from "./FleetPage.module.css";

/** What the fleet does now: numbers, two charts, every node, what happened. */
export function FleetPage() {
  const [range, setRange] = useRange();
  const nowMs = useNow();
  const staleSeconds = useStaleSeconds(nowMs);
  const nodes = useNodes();
  useTitle("Fleet");
  if (nodes.data?.length === 0) return <FirstRun />;
  const chart = { range, nowSeconds: Math.floor(nowMs / 1000) - (staleSeconds ?? 0), staleSeconds };
  return (
    <>
      <h1 className="visually-hidden">Fleet overview</h1>
      <div className="only-small">
        <RangePicker range={range} onChange={setRange} />
      </div>
      <FleetKpis range={range} staleSeconds={staleSeconds} />
      <div className={s.layout}>
        <div className={s.left}>
          <div className={s.charts}>
            <LatencyPanel {...chart} />
            <RatioPanel {...chart} />
          </div>
          <Loaded query={nodes} height={320}>
            {(rows) => <NodeGrid nodes={rows} staleSeconds={staleSeconds} />}
          </Loaded>
        </div>
        <div className={s.side}>
          <EventFeed />
          <WhoDecides />
        </div>
      </div>
    </>
  );
}

function WhoDecides() {
  const fleet = useFleet();
  return (
    <Panel title="Who decides" note={fleet.data ? `${fleet.data.nodes_total} nodes` : undefined}>
      <Loaded query={fleet} height={24}>
        {(data) => (
          <ul className={s.modes}>
            {Object.entries(data.modes)
              .filter(([, count]) => count > 0)
              .map(([mode, count]) => (
                <li key={mode} className="row">
                  <ModeBadge mode={mode} plain />
                  <Link className="end small" to={{ pathname: "/", search: `?mode=${mode}` }} aria-label={`Show the ${count} nodes in mode ${mode}`}>
                    {count}
                  </Link>
                </li>
              ))}
          </ul>
        )}
      </Loaded>
    </Panel>
  );
}
