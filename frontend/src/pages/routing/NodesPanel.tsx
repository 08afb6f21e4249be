import { ArrowDownToLine, Check, type LucideIcon, OctagonAlert, Power } from "lucide-react";
import { Link } from "react-router";
import { useRouting } from "../../api/queries";
import type { RoutedNode } from "../../api/types";
import { Chip, type Tone, WarnChip } from "../../components/Chip";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { grouped, milliseconds } from "../../format/number";
import s from "./RoutingPage.module.css";

const HEIGHT = 200;
const STALE_MS = 1000;

interface Look {
  word: string;
  tone: Tone;
  icon: LucideIcon;
}

const BREAKER: Look = { word: "breaker open", tone: "crit", icon: OctagonAlert };
const OFFLINE: Look = { word: "offline", tone: "crit", icon: Power };
const LOOKS: Record<string, Look> = {
  ready: { word: "ready", tone: "ok", icon: Check },
  draining: { word: "draining", tone: "neutral", icon: ArrowDownToLine },
};

function lookOf(node: RoutedNode): Look {
  return node.breaker_open ? BREAKER : (LOOKS[node.phase] ?? OFFLINE);
}

/** Age of the last report; a warning once the router has to guess. */
function Heard({ ageMs }: { ageMs: number | null }) {
  if (ageMs === null) return "never";
  const seconds = (ageMs / 1000).toFixed(1);
  return ageMs > STALE_MS ? <WarnChip>{seconds}</WarnChip> : seconds;
}

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
                <Chip tone={lookOf(node).tone} icon={lookOf(node).icon}>
                  {lookOf(node).word}
                </Chip>
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
              <td className="num">
                <Heard ageMs={node.staleness_ms} />
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
