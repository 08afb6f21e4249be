import { Button, Tooltip } from "@mantine/core";
import { Scaling } from "lucide-react";
import { useState } from "react";
import type { Node, PoolBytes } from "../../api/types";
import { Empty, Panel } from "../../components/Panel";
import { bytes, grouped, percentWithSign } from "../../format/number";
import { actionOf } from "./actions";
import { sizeStanding, wholePool } from "./resize";
import { SizeDialog } from "./SizeDialog";
import s from "./PoolPanel.module.css";

/** Who holds the pool: asked for, granted, used. The three differ while a migration runs. */
export function PoolPanel({ node, etag, className }: { node: Node; etag: string; className: string }) {
  const telemetry = node.status.telemetry;
  const both = wholePool(node);
  const standing = sizeStanding(node);
  if (!telemetry || !both) {
    return (
      <Panel title="HBM pool" className={className} aside={<SizeButton node={node} etag={etag} />}>
        <Empty>
          <p>The node has not reported its pool yet.</p>
        </Empty>
      </Panel>
    );
  }
  const { emb, kv, pool_bytes: pool, migrating_bytes: migrating } = telemetry;
  const share = (amount: number) => `${((amount / pool) * 100).toFixed(2)}%`;
  const label = `EMB ${bytes(emb.granted_bytes)} granted, ${bytes(emb.used_bytes)} used; KV ${bytes(kv.granted_bytes)} granted, ${bytes(kv.used_bytes)} used; ${bytes(migrating)} migrating`;
  return (
    <Panel
      title="HBM pool"
      note={`${bytes(pool)}${telemetry.emulated ? ", emulated" : ""}`}
      className={className}
      aside={<SizeButton node={node} etag={etag} />}
    >
      <div className={s.bar} role="img" aria-label={label}>
        <i className={s.emb} style={{ width: share(emb.used_bytes) }} />
        <i className={`${s.emb} ${s.unused}`} style={{ width: share(Math.max(0, emb.granted_bytes - emb.used_bytes)) }} />
        {migrating > 0 && <i className={s.migrating} style={{ width: share(migrating) }} />}
        <i className={s.kv} style={{ width: share(kv.used_bytes) }} />
        <i className={`${s.kv} ${s.unused}`} style={{ flex: 1 }} />
        <span className={s.target} style={{ left: `${telemetry.target_emb_ratio * 100}%` }} title={`Target ${percentWithSign(telemetry.target_emb_ratio)}`} />
      </div>
      <div className={`scroll-x ${s.table}`}>
        <table className="data-table">
          <thead>
            <tr>
              <th>Cache</th>
              <th className="num">Asked for</th>
              <th className="num">Granted</th>
              <th className="num">Used</th>
              <th className="num">Full</th>
            </tr>
          </thead>
          <tbody>
            <PoolRow name="EMB" color="emb" pool={emb} />
            <PoolRow name="KV" color="kv" pool={kv} />
            <PoolRow name="Both" pool={both} />
          </tbody>
        </table>
      </div>
      {standing && <p className={`small quiet ${s.standing}`}>{standing}</p>}
      <dl className={s.facts}>
        <Fact term="Migrating" value={bytes(migrating)} />
        <Fact term="Refill waiting" value={bytes(telemetry.refill_backlog_bytes)} />
        <Fact term="Moves since start" value={grouped(telemetry.moves_total)} />
        <Fact term="EMB evictions" value={grouped(telemetry.emb_evictions_total)} />
        <Fact term="KV evictions" value={grouped(telemetry.kv_evictions_total)} />
      </dl>
    </Panel>
  );
}

/** Opens the form, never acts at once. What is not allowed stays visible and says why. */
function SizeButton({ node, etag }: { node: Node; etag: string }) {
  const [open, setOpen] = useState(false);
  const action = actionOf(node, "resize");
  const button = (
    <Button className="end" leftSection={<Scaling size={14} />} data-disabled={!action?.allowed || undefined} aria-disabled={!action?.allowed} onClick={() => action?.allowed && setOpen(true)}>
      Resize
    </Button>
  );
  return (
    <>
      {action?.allowed ? button : <Tooltip label={action?.reason ?? "Not offered by the control plane."}>{button}</Tooltip>}
      {open && <SizeDialog node={node} etag={etag} onClose={() => setOpen(false)} />}
    </>
  );
}

function PoolRow({ name, color, pool }: { name: string; color?: string; pool: PoolBytes }) {
  return (
    <tr>
      <td>
        {color && <i className={s.swatch} style={{ background: `var(--${color})` }} />}
        {name}
      </td>
      <td className="num">{bytes(pool.requested_bytes)}</td>
      <td className="num">{bytes(pool.granted_bytes)}</td>
      <td className="num">{bytes(pool.used_bytes)}</td>
      <td className="num">{percentWithSign(pool.granted_bytes > 0 ? pool.used_bytes / pool.granted_bytes : null, 0)}</td>
    </tr>
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
