/** 1, 2, 4, 8, then 15 s: quick after a blink, gentle on a server that is coming back to many consoles at once. */
const STEPS_MS = [1000, 2000, 4000, 8000, 15_000];

/** Half of a step is fixed, half is chance (`random` in 0..1), so that consoles do not return in one wave. */
export function retryDelayMs(attempt: number, random: number): number {
  const step = STEPS_MS[Math.min(attempt, STEPS_MS.length - 1)] ?? 15_000;
  return Math.round(step * (0.5 + random / 2));
}
