import { CircleCheck, CircleHelp, Info, TriangleAlert } from "lucide-react";
import type { Condition, Node } from "../../api/types";
import { Panel } from "../../components/Panel";
import { duration } from "../../format/time";
import s from "./ConditionsPanel.module.css";

type Tone = "good" | "bad" | "unknown" | "plain";

/** Facts that are neither good nor bad: a migration may run or not. */
const PLAIN = new Set(["Migrating", "Draining"]);
/** Bad news when they are True; everything else is bad news when it is False. */
const BAD_WHEN_TRUE = /(Stale|Demoted|Degraded|Pressure|Burst|Throttled|Missing|Recovering)$/;

/** What a condition means for who reads it. */
export function toneOf(condition: Pick<Condition, "type" | "status">): Tone {
  if (condition.status === "Unknown") return "unknown";
  if (PLAIN.has(condition.type)) return "plain";
  return (condition.status === "True") === BAD_WHEN_TRUE.test(condition.type) ? "bad" : "good";
}

const ICONS = { good: CircleCheck, bad: TriangleAlert, unknown: CircleHelp, plain: Info };
const COLORS = { good: "ok", bad: "warn", unknown: "ink-3", plain: "ink-3" };

export function ConditionsPanel({ node, nowMs, className }: { node: Node; nowMs: number; className: string }) {
  return (
    <Panel title="Conditions" className={className} flush>
      <ul className={s.list}>
        {node.status.conditions.map((condition) => (
          <Row key={condition.type} condition={condition} nowMs={nowMs} />
        ))}
      </ul>
    </Panel>
  );
}

function Row({ condition, nowMs }: { condition: Condition; nowMs: number }) {
  const tone = toneOf(condition);
  const Icon = ICONS[tone];
  const since = condition.last_transition_at === null ? null : (nowMs - Date.parse(condition.last_transition_at)) / 1000;
  return (
    <li className={s.row}>
      <Icon size={15} aria-hidden color={`var(--${COLORS[tone]})`} />
      <div style={{ minWidth: 0 }}>
        <div className="row">
          <b>{condition.type}</b>
          <span style={{ color: `var(--${COLORS[tone]})` }}>{condition.status}</span>
          <span className="tiny dim end nowrap">{since === null ? "" : duration(since)}</span>
        </div>
        <div className="small quiet">
          {condition.reason}
          {condition.message && `: ${condition.message}`}
        </div>
      </div>
    </li>
  );
}
