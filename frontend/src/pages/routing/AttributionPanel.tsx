import { useRouting } from "../../api/queries";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { grouped, milliseconds } from "../../format/number";

const HEIGHT = 200;
const LABELS: Record<string, string> = { queue: "Queue", emb: "EMB misses", compute: "Compute", hop: "Network and hop", total: "Whole request" };

/** What lies between router and node is nobody's prediction: the router predicts a node's own time. */
const UNPREDICTED = "hop";

/** Where predictions go wrong, component by component. */
export function AttributionPanel({ className }: { className: string }) {
  const query = useRouting();
  const count = query.data?.attribution.count;
  return (
    <Panel title="Predicted against observed" note={count ? `${grouped(count)} answers` : undefined} className={className} flush>
      <Loaded
        query={query}
        height={HEIGHT}
        isEmpty={(found) => found.attribution.components.length === 0}
        empty={
          <Empty>
            <p>No answer has been compared yet.</p>
          </Empty>
        }
      >
        {(found) => (
          <table className="data-table">
            <thead>
              <tr>
                <th>Mean, ms</th>
                <th className="num">Predicted</th>
                <th className="num">Observed</th>
                <th className="num">Off by</th>
              </tr>
            </thead>
            <tbody>
              {found.attribution.components.map((entry) => (
                <tr key={entry.component}>
                  <td>{LABELS[entry.component] ?? entry.component}</td>
                  <td className="num">{entry.component === UNPREDICTED ? <span className="dim">not predicted</span> : milliseconds(entry.predicted_ms)}</td>
                  <td className="num">{milliseconds(entry.observed_ms)}</td>
                  <td className="num">{milliseconds(entry.error_ms)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Loaded>
    </Panel>
  );
}
