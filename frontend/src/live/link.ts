/** The state of the live stream, as a pure reducer: told the time, never asks for it. */

export interface Link {
  phase: "connecting" | "open" | "waiting" | "closed";
  /** When the last message came; null before the first. */
  lastMessageAtMs: number | null;
  /** Sequence id of the last message, sent back on reconnect so that nothing is missed. */
  lastSeq: string | null;
  /** Since when there is no stream; null while there is one. */
  lostAtMs: number | null;
  attempt: number;
  retryAtMs: number | null;
  /** How long the last gap was, until it has been announced. */
  filledGapMs: number | null;
}

export type LinkAction =
  | { type: "dialled" }
  | { type: "opened" }
  | { type: "message"; seq: string | null; atMs: number }
  | { type: "lost"; atMs: number; retryAtMs: number }
  | { type: "announced" }
  | { type: "closed" };

export const NO_LINK: Link = {
  phase: "closed",
  lastMessageAtMs: null,
  lastSeq: null,
  lostAtMs: null,
  attempt: 0,
  retryAtMs: null,
  filledGapMs: null,
};

export function reduceLink(link: Link, action: LinkAction): Link {
  switch (action.type) {
    case "dialled":
      return { ...link, phase: "connecting", retryAtMs: null };
    case "opened":
      return { ...link, phase: "open", retryAtMs: null };
    case "message":
      return {
        ...link,
        phase: "open",
        attempt: 0,
        lastMessageAtMs: action.atMs,
        lastSeq: action.seq ?? link.lastSeq,
        lostAtMs: null,
        filledGapMs: link.lostAtMs === null ? link.filledGapMs : action.atMs - link.lostAtMs,
      };
    case "lost":
      return {
        ...link,
        phase: "waiting",
        attempt: link.attempt + 1,
        lostAtMs: link.lostAtMs ?? link.lastMessageAtMs ?? action.atMs,
        retryAtMs: action.retryAtMs,
      };
    case "announced":
      return { ...link, filledGapMs: null };
    case "closed":
      return { ...NO_LINK, lastSeq: link.lastSeq };
  }
}

export type Indicator = "connecting" | "live" | "stale" | "offline";

/** No message for so long: the numbers are old. The server ticks once a second, so five are missing. */
export const STALE_AFTER_MS = 5000;
/** No message for so long: say Offline. */
export const OFFLINE_AFTER_MS = 60_000;

export function indicator(link: Link, nowMs: number): Indicator {
  const since = link.lastMessageAtMs ?? link.lostAtMs;
  if (since === null) return "connecting";
  const ageMs = nowMs - since;
  if (ageMs >= OFFLINE_AFTER_MS) return "offline";
  if (ageMs >= STALE_AFTER_MS || (link.lostAtMs !== null && link.phase !== "open")) return "stale";
  return "live";
}
