import { useState } from "react";
import { useDecisions } from "../../api/queries";
import type { Decision } from "../../api/types";
import { ModeBadge, WarnChip } from "../../components/Chip";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { microseconds, percent, signed } from "../../format/number";
import { logTime } from "../../format/time";
import s from "./DecisionsPanel.module.css";

const HEIGHT = 240;

/** Why the ratio moved, or did not; newest first. A row opens to everything the controller saw. */
export function DecisionsPanel({ name }: { name: string }) {
  const query = useDecisions(name);
  const [open, setOpen] = useState<number | null>(null);
  return (
    <Panel title="Recent decisions" note="why the ratio moved, newest first" flush>
      <Loaded
        query={query}
        height={HEIGHT}
        isEmpty={(decisions) => decisions.length === 0}
        empty={
          <Empty>
            <p>No decision recorded yet. The controller looks ten times a second and records what it decides.</p>
          </Empty>
        }
      >
        {(decisions) => (
          <div className={s.scroll} style={{ height: HEIGHT }} tabIndex={0} role="region" aria-label="Recent decisions">
            <table className="data-table">
              <thead>
                <tr>
                  <th>Time</th>
                  <th>By</th>
                  <th className="num">EMB %</th>
                  <th className="num">Proposed</th>
                  <th className="num">Shadow</th>
                  <th>Why</th>
                  <th>Limits</th>
                  <th className="num">Took</th>
                </tr>
              </thead>
              <tbody>
                {decisions.map((decision) => (
                  <Row key={decision.id} decision={decision} opened={open === decision.id} onToggle={() => setOpen(open === decision.id ? null : decision.id)} />
                ))}
              </tbody>
            </table>
          </div>
        )}
      </Loaded>
    </Panel>
  );
}

function Row({ decision, opened, onToggle }: { decision: Decision; opened: boolean; onToggle: () => void }) {
  const at = new Date(decision.at);
  return (
    <>
      <tr aria-selected={opened}>
        <td>
          <button type="button" className={s.open} aria-expanded={opened} onClick={onToggle}>
            {logTime(at, new Date())}
          </button>
        </td>
        <td>
          <ModeBadge mode={decision.mode} plain />
        </td>
        <td className="num">
          {percent(decision.emb_ratio_before)} → <b>{percent(decision.emb_ratio_granted)}</b>
        </td>
        <td className="num">{percent(decision.emb_ratio_proposed)}</td>
        <td className="num dim">{percent(decision.shadow_emb_ratio)}</td>
        <td className="fill">{decision.reason.replaceAll("_", " ")}</td>
        <td>{decision.guard_reasons.length === 0 ? <span className="dim">none</span> : <WarnChip>{decision.guard_reasons.join(", ").replaceAll("_", " ")}</WarnChip>}</td>
        <td className="num dim">{microseconds(decision.decision_us)}</td>
      </tr>
      {opened && (
        <tr>
          <td colSpan={8} className="fill">
            <dl className={s.features}>
              {Object.entries(decision.layers).map(([layer, value]) => (
                <Fact key={`layer-${layer}`} term={`${layer} (pp)`} value={signed(value * 100)} />
              ))}
              {Object.entries(decision.features).map(([feature, value]) => (
                <Fact key={feature} term={feature.replaceAll("_", " ")} value={Number(value.toPrecision(4)).toString()} />
              ))}
            </dl>
          </td>
        </tr>
      )}
    </>
  );
}

function Fact({ term, value }: { term: string; value: string }) {
  return (
    <div>
      <dt>{term}</dt>
      <dd>{value}</dd>
    </div>
  );
}
