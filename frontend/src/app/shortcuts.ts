/** Keys as a table and a small machine that reads sequences like `g f`. No DOM in here. */

export interface Shortcut {
  keys: string;
  does: string;
}

export const SHORTCUTS: Shortcut[] = [
  { keys: "/", does: "Search or jump to a node or page" },
  { keys: "g f", does: "Go to fleet" },
  { keys: "g n", does: "Go to nodes" },
  { keys: "g p", does: "Go to policies" },
  { keys: "g w", does: "Go to what-if" },
  { keys: "g r", does: "Go to routing" },
  { keys: "g a", does: "Go to the audit log" },
  { keys: "g k", does: "Go to API tokens" },
  { keys: "f", does: "Filter nodes (fleet page)" },
  { keys: "j", does: "Next node (node page)" },
  { keys: "k", does: "Previous node (node page)" },
  { keys: "o", does: "Override form (node page)" },
  { keys: "p", does: "Pin form (node page)" },
  { keys: "r", does: "Release form (node page)" },
  { keys: "b", does: "Roll back (policies page)" },
  { keys: "[", does: "Shorter time range" },
  { keys: "]", does: "Longer time range" },
  { keys: "Space", does: "Pause or resume live updates" },
  { keys: "t", does: "Light or dark theme" },
  { keys: "Esc", does: "Close a dialog" },
  { keys: "?", does: "This list" },
];

/** A prefix key waits this long for its second half. */
export const SEQUENCE_MS = 1200;

export interface KeyMemory {
  prefix: string | null;
  atMs: number;
}

export interface KeyResult {
  memory: KeyMemory;
  /** The shortcut that is complete now, for instance `g f`. */
  hit: string | null;
}

const PREFIXES = new Set(SHORTCUTS.map((entry) => entry.keys.split(" ")).flatMap((keys) => (keys.length > 1 ? [keys[0]] : [])));
const KNOWN = new Set(SHORTCUTS.map((entry) => entry.keys));

export function readKey(memory: KeyMemory, pressed: string, nowMs: number): KeyResult {
  const key = pressed === " " ? "Space" : pressed === "Escape" ? "Esc" : pressed;
  if (memory.prefix !== null && nowMs - memory.atMs <= SEQUENCE_MS) {
    const pair = `${memory.prefix} ${key}`;
    if (KNOWN.has(pair)) return { memory: { prefix: null, atMs: nowMs }, hit: pair };
  }
  if (PREFIXES.has(key)) return { memory: { prefix: key, atMs: nowMs }, hit: null };
  return { memory: { prefix: null, atMs: nowMs }, hit: KNOWN.has(key) ? key : null };
}
