import type { GuardRails, Preview } from "../../api/types";
import type { NumberEntry } from "../../components/Numbers";
import { signed } from "../../format/number";
import type { Verb } from "./verbs";

/** Rules of the form, pure: what may be sent, and what deserves a second look. The server decides; this only spares a round trip. */

export const REASON_MIN = 3;
export const REASON_MAX = 200;

/** Times to live that cover most of what people do by hand. */
export const TTL_CHOICES: { label: string; seconds: number }[] = [
  { label: "5 min", seconds: 300 },
  { label: "15 min", seconds: 900 },
  { label: "30 min", seconds: 1800 },
  { label: "2 h", seconds: 7200 },
];

/** Finest step of the slider, in points of a percent. */
export const STEP_PERCENT = 0.5;

export interface Draft {
  verb: Verb;
  embPercent: number | null;
  ttlSeconds: number | null;
  reason: string;
}

export interface Limits {
  rails: GuardRails;
  ttlSecondsMin: number;
  ttlSecondsMax: number;
}

export type Fault = { field: "emb_ratio" | "ttl_seconds" | "reason"; text: string };

export function ratioFault(embPercent: number | null, rails: GuardRails): string | null {
  if (embPercent === null || !Number.isFinite(embPercent)) return "Say which share of the pool EMB should have.";
  const low = rails.emb_ratio_min * 100;
  const high = rails.emb_ratio_max * 100;
  if (embPercent < low - 1e-9 || embPercent > high + 1e-9) return `Outside the guard rails (${low.toFixed(0)} to ${high.toFixed(0)} %).`;
  return null;
}

function ttlFault(ttlSeconds: number | null, limits: Limits): string | null {
  if (ttlSeconds === null) return "For instance 20m, 90s or 2h.";
  if (ttlSeconds < limits.ttlSecondsMin) return `At least ${limits.ttlSecondsMin} s.`;
  if (ttlSeconds > limits.ttlSecondsMax) return `At most ${Math.floor(limits.ttlSecondsMax / 3600)} h; for longer, pin the node.`;
  return null;
}

export function faults(draft: Draft, limits: Limits): Fault[] {
  const found: Fault[] = [];
  const ratio = draft.verb === "release" ? null : ratioFault(draft.embPercent, limits.rails);
  if (ratio) found.push({ field: "emb_ratio", text: ratio });
  const ttl = draft.verb === "override" ? ttlFault(draft.ttlSeconds, limits) : null;
  if (ttl) found.push({ field: "ttl_seconds", text: ttl });
  const why = reasonFault(draft.reason);
  if (why) found.push({ field: "reason", text: why });
  return found;
}

export function reasonFault(reason: string): string | null {
  const length = reason.trim().length;
  if (length < REASON_MIN) return `At least ${REASON_MIN} characters: whoever reads the audit log at night will thank you.`;
  return length > REASON_MAX ? `At most ${REASON_MAX} characters.` : null;
}

/** How much more or less both caches would hold. */
export function heldMore({ change }: Preview): [NumberEntry, NumberEntry] {
  return [
    { term: "EMB rows in HBM", value: signed(change.emb_rows, 0) },
    { term: "Full histories", value: signed(change.kv_users, 0) },
  ];
}

/** Expected change of P99 in ms; null when the node cannot predict. */
export function expectedChangeMs(preview: Preview): number | null {
  const { before, after } = preview;
  if (!before.predicted || !after.predicted) return null;
  return after.predicted.latency_ms_p99 - before.predicted.latency_ms_p99;
}

/** A predicted change below this share of P99 is rounding, not a price. */
const CLEAR_CHANGE_RATIO = 0.01;

/** Is the wish expected to make requests clearly slower? */
export function isSlower(preview: Preview): boolean {
  const change = expectedChangeMs(preview);
  return change !== null && change > (preview.before.predicted?.latency_ms_p99 ?? 0) * CLEAR_CHANGE_RATIO;
}

/** A wish that is expected to hurt is shown once more before it is sent. */
export function deservesReview(preview: Preview | undefined): boolean {
  return preview !== undefined && (isSlower(preview) || preview.warnings.includes("over_slo"));
}
