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
      <h3 title={`Counted since model version ${version} was taken up`}>Rows found in HBM, by table</h3>
      <dl className={s.list} tabIndex={0} aria-label="Rows found in HBM, by table">
        {tables.map(({ name, lookups_total: lookups, hits_total: hits }) => (
          <div key={name}>
            <dt className="mono ellipsis" title={name}>
              {name}
            </dt>
            <dd>
              <b>{percentWithSign(lookups > 0 ? hits / lookups : null)}</b> of {grouped(lookups)}
            </dd>
          </div>
        ))}
      </dl>
      {tables.length === TABLES_MAX && <p className="tiny dim">The last line counts all further tables too.</p>}
    </div>
  );
}
