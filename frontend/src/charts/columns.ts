/** A document of columns (`at` and many lists of one length) as the charts want it. */

type Column = (number | null)[];

export interface Columns {
  /** Unix seconds. */
  at: number[];
  columns: Record<string, Column>;
}

/** Numeric columns of a series document; strings (`mode`) and single values (`slo_ms`) are left to the caller. */
export function columnsOf(document: { at: string[] } & object): Columns {
  const columns: Record<string, Column> = {};
  for (const [name, value] of Object.entries(document)) {
    if (name === "at" || !Array.isArray(value)) continue;
    columns[name] = value.map((item: unknown) => (typeof item === "number" ? item : null));
  }
  return { at: document.at.map((time) => Date.parse(time) / 1000), columns };
}

export interface Sample {
  atSeconds: number;
  values: Record<string, number | null>;
}

/** History followed by what the stream brought since, cut to the window. */
export function withTail({ at, columns }: Columns, tail: readonly Sample[], fromSeconds: number): Columns {
  const last = at.at(-1) ?? 0;
  const newer = tail.filter((sample) => sample.atSeconds > last + 0.5 && sample.atSeconds >= fromSeconds);
  const found = at.findIndex((time) => time >= fromSeconds);
  const cut = found < 0 ? at.length : found;
  const names = new Set([...Object.keys(columns), ...newer.flatMap((sample) => Object.keys(sample.values))]);
  const merged: Record<string, Column> = {};
  for (const name of names) {
    merged[name] = [...(columns[name] ?? at.map(() => null)).slice(cut), ...newer.map((sample) => sample.values[name] ?? null)];
  }
  return { at: [...at.slice(cut), ...newer.map((sample) => sample.atSeconds)], columns: merged };
}
