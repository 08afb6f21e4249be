import type { WhatIfResult, WhatIfRun } from "../../api/types";

/** Figures of a finished run, read out of its cells; pure. */

/** A figure of a cell, or null when the cell has none under this name. */
export function figureOf(run: WhatIfRun, name: string): number | null {
  const value: unknown = (run.cell as Record<string, unknown>)[name];
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** The run that lets the controller decide; the others hold one ratio. */
export function controllerOf(runs: WhatIfRun[]): WhatIfRun | undefined {
  return runs.find((run) => !run.method.startsWith("static")) ?? runs.at(-1);
}

/** The static ratio with the lowest P99: what the controller has to beat. */
export function bestStatic(runs: WhatIfRun[]): WhatIfRun | undefined {
  const known = runs.filter((run) => run.method.startsWith("static") && figureOf(run, "latency_ms_p99") !== null);
  return known.sort((a, b) => (figureOf(a, "latency_ms_p99") as number) - (figureOf(b, "latency_ms_p99") as number))[0];
}

/** Less than this share apart is noise of one seed, not a finding. */
const CLEAR_CHANGE_RATIO = 0.02;

/** One sentence made from the numbers, never from a rank alone. */
export function finding(runs: WhatIfRun[]): string | null {
  const controller = controllerOf(runs);
  const rival = bestStatic(runs);
  const ours = controller ? figureOf(controller, "latency_ms_p99") : null;
  const theirs = rival ? figureOf(rival, "latency_ms_p99") : null;
  if (!rival || ours === null || theirs === null || theirs <= 0) return null;
  const change = (ours - theirs) / theirs;
  if (Math.abs(change) < CLEAR_CHANGE_RATIO) {
    return `No clear difference: the controller's P99 is ${ours.toFixed(1)} ms, the better fixed ratio (${rival.label}) has ${theirs.toFixed(1)} ms.`;
  }
  const word = change < 0 ? "below" : "above";
  return `The controller's P99 is ${Math.abs(change * 100).toFixed(0)} % ${word} the better fixed ratio (${rival.label}): ${ours.toFixed(1)} against ${theirs.toFixed(1)} ms.`;
}

function points(error: number): string {
  return `${error < 0 ? "−" : "+"}${Math.abs(error * 100).toFixed(0)} %`;
}

/** What the simulator was last held against, in one sentence; null for results from before that was kept. */
export function belief(validation: WhatIfResult["validation"]): string | null {
  if (!validation) return null;
  const measured = validation.measured;
  if (!measured) return "The simulator was never held against a live run on this machine: helmctl sim validate does that.";
  const day = measured.at.slice(0, 10);
  return `Held against a live run on ${day} (${measured.workload}, ${measured.rate_per_node.toFixed(0)} requests/s a node): P50 ${points(measured.latency_p50_error)}, P99 ${points(measured.latency_p99_error)}.`;
}
