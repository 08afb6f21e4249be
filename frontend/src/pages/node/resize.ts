import type { Node, Preview } from "../../api/types";
import { bytes } from "../../format/number";
import { reasonFault } from "./take";

/** Rules of the form that sizes a pool, pure. The server decides; this only spares a round trip. */

export interface SizeDraft {
  /** null: all that the node's profile has. */
  poolBytes: number | null;
  reason: string;
}

export interface SizeLimits {
  bytesMin: number | null;
  bytesMax: number | null;
}

export type SizeFault = { field: "pool_bytes" | "reason"; text: string };

export function sizeLimits({ spec }: Node): SizeLimits {
  return { bytesMin: spec.pool_bytes_min, bytesMax: spec.pool_bytes_max };
}

function sizeFault(poolBytes: number | null | undefined, { bytesMin, bytesMax }: SizeLimits): string | null {
  if (poolBytes === null) return null;
  if (poolBytes === undefined) return "For instance 32 MiB, 1.5 GiB or plain bytes.";
  if (bytesMin !== null && poolBytes < bytesMin) return `At least ${bytes(bytesMin)}: each cache keeps a page at its guard rail.`;
  if (bytesMax !== null && poolBytes > bytesMax) return `At most ${bytes(bytesMax)}: the node was started with no more.`;
  return null;
}

/** What may not be sent; `undefined` as a size is text that is none. */
export function sizeFaults(poolBytes: number | null | undefined, reason: string, limits: SizeLimits): SizeFault[] {
  const size = sizeFault(poolBytes, limits);
  const why = reasonFault(reason);
  return [...(size ? [{ field: "pool_bytes" as const, text: size }] : []), ...(why ? [{ field: "reason" as const, text: why }] : [])];
}

/** Does the wish take memory away from the caches? */
export function shrinks(preview: Preview | undefined): boolean {
  return preview !== undefined && preview.after.pool_bytes < preview.before.pool_bytes;
}

/** Bytes of both caches together: asked for, granted, used. */
export function wholePool(node: Node): { requested_bytes: number; granted_bytes: number; used_bytes: number } | null {
  const telemetry = node.status.telemetry;
  if (!telemetry) return null;
  const { emb, kv } = telemetry;
  return {
    requested_bytes: emb.requested_bytes + kv.requested_bytes,
    granted_bytes: emb.granted_bytes + kv.granted_bytes,
    used_bytes: emb.used_bytes + kv.used_bytes,
  };
}

/** How the size that was asked for and the size there is stand to each other, or null when there is nothing to say. */
export function sizeStanding(node: Node): string | null {
  const { spec, status, metadata } = node;
  const wanted = spec.pool_bytes === null ? "all of it" : bytes(spec.pool_bytes);
  const applied = status.conditions.find((condition) => condition.type === "SpecApplied");
  if (applied?.reason === "Refused" && applied.message.includes("pool_bytes")) return `The node refused ${wanted}: ${applied.message}`;
  const pool = status.telemetry?.pool_bytes ?? null;
  const requested = wholePool(node)?.requested_bytes ?? null;
  if (pool !== null && requested !== null && pool !== requested) return `${pool > requested ? "Shrinking" : "Growing"} from ${bytes(pool)} to ${bytes(requested)}.`;
  if (spec.pool_bytes === null) return null;
  if (status.observed_generation < metadata.generation) return `Set to ${wanted}; the node has not confirmed it yet.`;
  return `Set to ${wanted}${spec.pool_bytes_max === null ? "" : ` of ${bytes(spec.pool_bytes_max)}`}.`;
}
