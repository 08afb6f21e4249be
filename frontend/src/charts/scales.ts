/** Axis limits: pure, shared by every chart, so that a small ripple does not look like a storm. */

/** Latency starts at zero and always shows the SLO line. */
export function latencyRange(slo: number | null | undefined): (low: number, high: number) => [number, number] {
  return (_, high) => [0, Math.max(high, slo ?? 0) * 1.15 || 1];
}

/** A share is shown in at least ten points around what there is, inside 0..1. */
export function ratioRange(low: number, high: number): [number, number] {
  const middle = (low + high) / 2;
  const half = Math.max((high - low) / 2 + 0.02, 0.05);
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

/** Whole percents between the labels of a share. */
export const RATIO_INCREMENTS = [0.01, 0.02, 0.05, 0.1, 0.2];

/** Counts and rates start at zero. */
export function countRange(_: number, high: number): [number, number] {
  return [0, high * 1.15 || 1];
}
