import { OctagonAlert } from "lucide-react";
import { memo } from "react";
import { Link } from "react-router";
import type { Node } from "../../api/types";
import { Sparkline } from "../../charts/Sparkline";
import { EmulatedChip, ModeBadge, modeLook } from "../../components/Chip";
import { SplitBar } from "../../components/SplitBar";
import { grouped, milliseconds, percent, percentWithSign } from "../../format/number";
import { clock, shortLeft } from "../../format/time";
import { isOverSlo, modeOf } from "./nodeFilter";
import s from "./NodeTile.module.css";

interface Props {
  node: Node;
  /** P99 of the last minutes, for the trend. */
  trend: (number | null)[];
  /** Query string to keep when the node is opened. */
  search: string;
}

/** All a tile says, in one sentence, for those who hear it. */
export function tileLabel(node: Node): string {
  const telemetry = node.status.telemetry;
  const { word } = modeLook(modeOf(node));
  if (!telemetry || node.status.phase === "offline") return `${node.metadata.name}, ${word}, no data`;
  const slo = telemetry.latency_ms_p99 === null ? "" : isOverSlo(node) ? ", over SLO" : ", under SLO";
  return (
    `${node.metadata.name}, ${word}, P99 ${milliseconds(telemetry.latency_ms_p99)} ms${slo}, EMB ${percentWithSign(node.status.emb_ratio, 0)}, ` +
    `EMB hit ${percentWithSign(telemetry.emb_hit_ratio, 0)}, KV hit ${percentWithSign(telemetry.kv_hit_ratio, 0)}, queue ${telemetry.queue_depth}`
  );
}

function toneOf(node: Node): string {
  if (node.status.phase === "offline") return s.offline ?? "";
  if (isOverSlo(node)) return s.over ?? "";
  return modeOf(node) === "recovery" ? (s.recovery ?? "") : "";
}

/** Seconds an override still has, by the node's own clock while it reports, else by the plan. */
export function overrideLeft(node: Node): number | null {
  if (modeOf(node) !== "override") return null;
  const byNode = node.status.telemetry?.override_remaining_ms;
  if (byNode !== null && byNode !== undefined) return byNode / 1000;
  return node.spec.ttl_remaining_seconds;
}

export const NodeTile = memo(function NodeTile({ node, trend, search }: Props) {
  const { name } = node.metadata;
  const telemetry = node.status.telemetry;
  const offline = node.status.phase === "offline";
  const left = overrideLeft(node);
  return (
    <Link
      className={`${s.tile} ${toneOf(node)}`}
      to={{ pathname: `/nodes/${encodeURIComponent(name)}`, search }}
      aria-label={tileLabel(node)}
      data-node={name}
    >
      <span className={s.head}>
        <span className={`${s.name} ellipsis`}>{name}</span>
        <span className="row end" style={{ gap: 6 }}>
          {left !== null && <span className="tiny dim">{shortLeft(left)}</span>}
          <ModeBadge mode={modeOf(node)} plain />
        </span>
      </span>
      <span className={s.latency}>
        <span className={`${s.value} ${isOverSlo(node) ? s.crit : ""}`}>
          {isOverSlo(node) && <OctagonAlert size={14} aria-hidden />}
          {offline ? "No heartbeat" : milliseconds(telemetry?.latency_ms_p99)}
          {!offline && <small title="P99 of the last minute against the SLO; not known under 300 requests">/ {telemetry?.slo_ms.toFixed(0) ?? "n/a"} ms P99</small>}
        </span>
        {!offline && <Sparkline values={trend} reference={telemetry?.slo_ms ?? null} range={[0, (telemetry?.slo_ms ?? 50) * 1.5]} area={false} />}
      </span>
      <SplitBar embRatio={offline ? null : node.status.emb_ratio} />
      <span className={s.foot}>
        <span>
          <span className={s.emb}>{percent(node.status.emb_ratio, 0)}</span> / <span className={s.kv}>{percent(node.status.emb_ratio === null ? null : 1 - node.status.emb_ratio, 0)}</span>
        </span>
        {offline ? (
          <span>{telemetry ? `since ${clock(new Date(telemetry.at))}` : "never seen"}</span>
        ) : (
          <span>
            hit <span className={s.emb}>E {percent(telemetry?.emb_hit_ratio, 0)}</span> <span className={s.kv}>K {percent(telemetry?.kv_hit_ratio, 0)}</span>
          </span>
        )}
      </span>
      <span className={s.foot}>
        <span>{telemetry?.emulated ? <EmulatedChip plain /> : (telemetry?.device ?? "")}</span>
        <span>{offline ? "" : `queue ${grouped(telemetry?.queue_depth)}`}</span>
      </span>
    </Link>
  );
});
