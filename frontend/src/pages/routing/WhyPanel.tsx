import { Check } from "lucide-react";
import type { ReactNode } from "react";
import { usePick } from "../../api/queries";
import type { Candidate, ExplainedPick } from "../../api/types";
import { Chip } from "../../components/Chip";
import { Empty, Legend, Loaded, Panel } from "../../components/Panel";
import { grouped, milliseconds } from "../../format/number";
import { PARTS, partMs, ranked, reasonOf, scoreMs, whyPicked } from "./routing";
import s from "./RoutingPage.module.css";

const HEIGHT = 380;

/** Every candidate of one pick, what its score was made of, and why others were left out. */
export function WhyPanel({ requestId, className, aside }: { requestId: string; className: string; aside: ReactNode }) {
  const query = usePick(requestId);
  return (
    <Panel title="Why this node" note={requestId ? <span className="mono">{requestId}</span> : undefined} aside={aside} className={className} flush>
      {requestId ? (
        <Loaded query={query} height={HEIGHT}>
          {(pick) => <Explained pick={pick} />}
        </Loaded>
      ) : (
        <div style={{ height: HEIGHT }}>
          <Empty>
            <p>Choose a pick, or enter the x-request-id of an answer.</p>
          </Empty>
        </div>
      )}
    </Panel>
  );
}

function Explained({ pick }: { pick: ExplainedPick }) {
  const candidates = ranked(pick);
  const largest = Math.max(...candidates.map(scoreMs), 1e-9);
  return (
    <>
      <div className={s.facts}>
        <span>
          history <b>{grouped(pick.history_tokens)}</b> tokens
        </span>
        <span>
          resident <b>{grouped(pick.cached_tokens)}</b>
        </span>
        <span>
          candidates <b>{grouped(pick.candidates)}</b>
        </span>
        <span>
          predicted <b>{milliseconds(pick.predicted_ms)} ms</b>
        </span>
        <span>
          observed <b>{milliseconds(pick.observed?.total)} ms</b>
        </span>
      </div>
      <div className="scroll-x">
        <table className="data-table">
          <thead>
            <tr>
              <th>Candidate</th>
              <th className="num">Prefix held</th>
              <th>Score parts</th>
              <th className="num">Queue, ms</th>
              <th className="num">KV, ms</th>
              <th className="num">EMB, ms</th>
              <th className="num">Rent, ms</th>
              <th className="num">Delay, ms</th>
              <th className="num">Score, ms</th>
            </tr>
          </thead>
          <tbody>
            {candidates.map((candidate) => (
              <Row key={candidate.name} candidate={candidate} largest={largest} chosen={candidate.name === pick.picked} />
            ))}
          </tbody>
        </table>
      </div>
      <div className={s.legend}>
        <Legend entries={PARTS.map(({ label, color }) => ({ label, color, mark: "area" as const }))} />
      </div>
      <p className={s.finding}>{whyPicked(pick)}</p>
    </>
  );
}

function Row({ candidate, largest, chosen }: { candidate: Candidate; largest: number; chosen: boolean }) {
  const reason = reasonOf(candidate);
  const parts = PARTS.map((part) => ({ ...part, ms: partMs(candidate, part.names) }));
  const value = (name: string) => milliseconds(candidate.components[name]);
  return (
    <tr aria-selected={chosen} className={reason && !chosen ? "dim" : ""}>
      <td>
        <span className="mono">{candidate.name}</span> {chosen && <Chip tone="ok" icon={Check}>
            chosen
          </Chip>}
      </td>
      <td className="num">{grouped(candidate.components.cached)}</td>
      <td>
        {reason && !chosen ? (
          reason
        ) : (
          <div className={s.bar} role="img" aria-label={parts.map((part) => `${part.label} ${milliseconds(part.ms)} ms`).join(", ")}>
            {parts.map((part) => part.ms > 0 && <i key={part.label} style={{ width: `${(part.ms / largest) * 100}%`, background: `var(--${part.color})` }} />)}
          </div>
        )}
      </td>
      <td className="num">{value("queue")}</td>
      <td className="num">{value("kv")}</td>
      <td className="num">{value("emb")}</td>
      <td className="num">{value("rent")}</td>
      <td className="num">{value("delay")}</td>
      <td className="num">{value("score")}</td>
    </tr>
  );
}
