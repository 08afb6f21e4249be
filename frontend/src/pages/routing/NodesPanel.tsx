import { Link } from "react-router";
import { useRouting } from "../../api/queries";
import type { RoutedNode } from "../../api/types";
import { Chip, type Tone } from "../../components/Chip";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { grouped, milliseconds } from "../../format/number";
import s from "./RoutingPage.module.css";

const HEIGHT = 200;
const STALE_MS = 1000;
const TONES: Record<string, Tone> = { ready: "ok", draining: "neutral", offline: "crit" };

/** The nodes as the router knows them: share of the picks, load ahead, and how far observation is from prediction. */
export function NodesPanel({ className }: { className: string }) {
  const query = useRouting();
  return (
    <Panel title="Balance" note="nodes as the router knows them" className={className} flush>
      <Loaded
        query={query}
        height={HEIGHT}
        isEmpty={(found) => found.nodes.length === 0}
        empty={
          <Empty>
            <p>The router knows no node.</p>
          </Empty>
        }
      >
        {(found) => <NodeTable nodes={found.nodes} />}
      </Loaded>
    </Panel>
  );
}

function NodeTable({ nodes }: { nodes: RoutedNode[] }) {
  const most = Math.max(...nodes.map((node) => node.picks_total), 1);
  return (
    <div className="scroll-x">
      <table className="data-table">
        <thead>
          <tr>
            <th>Node</th>
            <th>State</th>
            <th>Picks</th>
            <th className="num" />
            <th className="num">In flight</th>
            <th className="num">Queue, ms</th>
            <th className="num">Observed / predicted</th>
            <th className="num">Resident users</th>
            <th className="num">Heard, s ago</th>
          </tr>
        </thead>
        <tbody>
          {nodes.map((node) => (
            <tr key={node.name}>
              <td>
                <Link className="mono" to={`/nodes/${encodeURIComponent(node.name)}`}>
                  {node.name}
                </Link>
              </td>
              <td>
                <Chip tone={node.breaker_open ? "crit" : (TONES[node.phase] ?? "neutral")}>{node.breaker_open ? "breaker open" : node.phase}</Chip>
              </td>
              <td>
                <div className={s.share}>
                  <i style={{ width: `${(node.picks_total / most) * 100}%` }} />
                </div>
              </td>
              <td className="num">{grouped(node.picks_total)}</td>
              <td className="num">{grouped(node.in_flight)}</td>
              <td className="num">{milliseconds(node.queued_ms)}</td>
              <td className="num">{node.correction.toFixed(2)}</td>
              <td className="num">{grouped(node.resident_users)}</td>
              <td className="num">{node.staleness_ms !== null && node.staleness_ms > STALE_MS ? <Chip tone="warn">{(node.staleness_ms / 1000).toFixed(1)}</Chip> : (node.staleness_ms === null ? "never" : (node.staleness_ms / 1000).toFixed(1))}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
