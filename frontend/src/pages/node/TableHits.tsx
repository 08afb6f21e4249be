import type { Telemetry } from "../../api/types";
import { grouped, percentWithSign } from "../../format/number";
import s from "./TableHits.module.css";

/** As many tables as a node counts apart. */
const TABLES_MAX = 16;

/** Which embedding table finds its rows in HBM, by the names that the model version brought. */
export function TableHits({ telemetry }: { telemetry: Telemetry }) {
  const { tables, model_version: version } = telemetry;
  if (tables.length === 0) return null;
  return (
    <div className={s.hits}>
      <h3>EMB hits by table, since version {version} was taken up</h3>
      <div className={s.scroll} tabIndex={0} role="group" aria-label="EMB hits by table">
        <table className="data-table">
          <thead>
            <tr>
              <th>Table</th>
              <th className="num">Rows looked up</th>
              <th className="num">In HBM</th>
            </tr>
          </thead>
          <tbody>
            {tables.map(({ name, lookups_total: lookups, hits_total: hits }) => (
              <tr key={name}>
                <td className={`mono ellipsis ${s.name}`} title={name}>
                  {name}
                </td>
                <td className="num">{grouped(lookups)}</td>
                <td className="num">{percentWithSign(lookups > 0 ? hits / lookups : null)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {tables.length === TABLES_MAX && <p className="tiny dim">The last line counts all further tables too.</p>}
    </div>
  );
}
