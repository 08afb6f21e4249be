import { CircleCheck, CircleHelp, CircleX, Clock, type LucideIcon, RefreshCw, Square } from "lucide-react";
import type { Policy, PolicyChange, TrainingPoint, TrainingRun } from "../../api/types";
import type { Tone } from "../../components/Chip";
import { NOT_KNOWN } from "../../format/number";

/** What the policies page says of states and numbers; pure. */

interface Look {
  word: string;
  tone: Tone;
  icon: LucideIcon;
}

const STATES: Record<Policy["state"], Look> = {
  candidate: { word: "Candidate", tone: "neutral", icon: CircleHelp },
  usable: { word: "Usable", tone: "ok", icon: CircleCheck },
  rejected: { word: "Rejected", tone: "crit", icon: CircleX },
};

const RUNS: Record<TrainingRun["status"], Look> = {
  queued: { word: "Queued", tone: "neutral", icon: Clock },
  running: { word: "Running", tone: "accent", icon: RefreshCw },
  succeeded: { word: "Done", tone: "ok", icon: CircleCheck },
  failed: { word: "Failed", tone: "crit", icon: CircleX },
  cancelled: { word: "Cancelled", tone: "neutral", icon: Square },
};

export const stateLook = (state: Policy["state"]): Look => STATES[state];
export const runLook = (status: TrainingRun["status"]): Look => RUNS[status];

export const OPPONENTS: { name: string; label: string }[] = [
  { name: "parent", label: "Parent" },
  { name: "b5", label: "B5" },
  { name: "b7", label: "B7" },
];

function percentChange(ratio: number): string {
  const text = Math.abs(ratio * 100).toFixed(1);
  return `${Number(text) === 0 ? "" : ratio > 0 ? "+" : "−"}${text} %`;
}

/** "−3.1 % (−4.0 to −2.0)": the mean, and its interval where there is one. */
export function changeText(change: PolicyChange | undefined): string {
  if (!change || change.mean === null) return NOT_KNOWN;
  const spread = change.low === null || change.high === null ? "" : ` (${percentChange(change.low)} to ${percentChange(change.high)})`;
  return percentChange(change.mean) + spread;
}

/** A word for a change of P99, by its interval and never by the mean alone. */
export function changeWord(change: PolicyChange | undefined): "better" | "worse" | "no clear change" | "" {
  if (!change || change.low === null || change.high === null) return "";
  if (change.high < 0) return "better";
  return change.low > 0 ? "worse" : "no clear change";
}

/** Where a version decides or advises, told and done beside each other. */
export function usesOf(policy: Policy): { node: string; controller: string; inForce: boolean }[] {
  const told = policy.wanted_on.map((use) => ({ node: use.node, controller: use.controller, inForce: policy.in_force_on.includes(use.node) }));
  const known = new Set(told.map((use) => use.node));
  const others = policy.in_force_on.filter((node) => !known.has(node)).map((node) => ({ node, controller: "", inForce: true }));
  return [...told, ...others].sort((a, b) => a.node.localeCompare(b.node));
}

/** "2 active, 1 advisory, 4 from their start, 1 on the way": nodes that nobody told decide by what they were started with. */
export function usesText(policy: Policy): string {
  const uses = usesOf(policy);
  const count = (controller: string) => uses.filter((use) => use.controller === controller).length;
  const waiting = uses.filter((use) => !use.inForce).length;
  const words: [number, string][] = [
    [count("active"), "active"],
    [count("advisory"), "advisory"],
    [count(""), "from their start"],
    [waiting, "on the way"],
  ];
  return words.flatMap(([number, word]) => (number > 0 ? [`${number} ${word}`] : [])).join(", ");
}

/** The version that most nodes decide by: what somebody who names none wants to see. The first where none is in force. */
export function mostInForce(policies: Policy[]): Policy | undefined {
  return policies.reduce<Policy | undefined>((most, policy) => (most && most.in_force_on.length >= policy.in_force_on.length ? most : policy), undefined);
}

export interface Curve {
  steps: number[];
  values: number[];
}

/** One column of a learning curve, without the points that have no such number. */
export function curveOf(points: TrainingPoint[], column: "reward_mean" | "loss"): Curve {
  const known = points.filter((point) => point[column] !== null);
  return { steps: known.map((point) => point.steps), values: known.map((point) => point[column] as number) };
}

export function isRunOpen(run: Pick<TrainingRun, "status">): boolean {
  return run.status === "queued" || run.status === "running";
}
