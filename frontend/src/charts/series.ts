/** What a chart is told. Times are unix seconds, values are in the unit the axis shows. */

export interface Line {
  label: string;
  values: (number | null)[];
  /** Name of a design token without the dashes, for instance `emb`. */
  color: string;
  width?: number;
  dash?: number[];
  step?: boolean;
  /** Drawn by a band only; no line and no row in the tooltip. */
  hidden?: boolean;
  /** Filled down to the axis with this opacity. */
  fill?: number;
}

/** Area between two lines, by their labels. */
export interface Band {
  upper: string;
  lower: string;
  color: string;
  opacity: number;
}

export interface Reference {
  value: number;
  label: string;
  color: string;
}

export interface Span {
  from: number;
  to: number;
  color: string;
  label: string;
}

/** A hole is drawn where samples are further apart than this many of their usual distance. */
const GAP_STEPS = 3;

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/**
 * Puts one empty sample into every hole, so that a line is never drawn across time
 * in which nothing was measured.
 */
export function withGaps(at: number[], lines: Line[]): { at: number[]; lines: Line[] } {
  if (at.length < 3) return { at, lines };
  const steps = at.slice(1).map((time, index) => time - (at[index] as number));
  const limit = Math.max(median(steps) * GAP_STEPS, 3);
  if (!steps.some((step) => step > limit)) return { at, lines };
  const times: number[] = [];
  const columns = lines.map(() => [] as (number | null)[]);
  at.forEach((time, index) => {
    const step = index === 0 ? 0 : (steps[index - 1] as number);
    if (step > limit) {
      times.push(time - step / 2);
      columns.forEach((column) => column.push(null));
    }
    times.push(time);
    columns.forEach((column, line) => column.push(lines[line]?.values[index] ?? null));
  });
  return { at: times, lines: lines.map((line, index) => ({ ...line, values: columns[index] ?? [] })) };
}

/** Lowest and highest known value of several columns; null when nothing is known. */
export function extent(columns: (number | null)[][]): [number, number] | null {
  let low = Infinity;
  let high = -Infinity;
  for (const column of columns) {
    for (const value of column) {
      if (value === null || !Number.isFinite(value)) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : null;
}
