/** The audit page's own language: `actor: target: action:`, and what changed between two documents. Pure. */

export interface Filter {
  actor: string;
  target: string;
  action: string;
}

/** `target:node-0 action:node.pin` -> fields; a word without a name is a target, which is what people look for. */
export function parseFilter(text: string): Filter {
  const filter: Filter = { actor: "", target: "", action: "" };
  for (const word of text.trim().split(/\s+/).filter(Boolean)) {
    const match = /^(actor|target|action):(.*)$/.exec(word);
    if (match) filter[match[1] as keyof Filter] = match[2] ?? "";
    else filter.target = word;
  }
  return filter;
}

export function filterText(filter: Filter): string {
  return (["actor", "target", "action"] as const)
    .filter((name) => filter[name] !== "")
    .map((name) => `${name}:${filter[name]}`)
    .join(" ");
}

export interface ChangeLine {
  sign: "-" | "+" | " ";
  name: string;
  value: string;
}

function fields(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

/** What was taken away, what came, what stayed, by field. */
export function changes(before: unknown, after: unknown): ChangeLine[] {
  const old = fields(before);
  const now = fields(after);
  const names = [...new Set([...Object.keys(old), ...Object.keys(now)])];
  return names.flatMap((name): ChangeLine[] => {
    const was = name in old ? JSON.stringify(old[name]) : null;
    const is = name in now ? JSON.stringify(now[name]) : null;
    if (was !== null && was === is) return [{ sign: " ", name, value: was }];
    const lines: ChangeLine[] = [];
    if (was !== null) lines.push({ sign: "-", name, value: was });
    if (is !== null) lines.push({ sign: "+", name, value: is });
    return lines;
  });
}
