import { CircleCheck, CircleHelp, OctagonAlert } from "lucide-react";
import type { Condition, Node } from "../../api/types";
import { Panel } from "../../components/Panel";
import { duration } from "../../format/time";
import s from "./ConditionsPanel.module.css";

/** Conditions that are good news when they are False. */
const BAD_WHEN_TRUE = /^(Burst|Reuse|Draining|Demoted|Degraded|Stale|Refill)/;

function toneOf(condition: Condition): "ok" | "crit" | "unknown" {
  if (condition.status === "Unknown") return "unknown";
  return (condition.status === "True") === !BAD_WHEN_TRUE.test(condition.type) ? "ok" : "crit";
}

const ICONS = { ok: CircleCheck, crit: OctagonAlert, unknown: CircleHelp };
const COLORS = { ok: "ok", crit: "warn", unknown: "ink-3" };

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
