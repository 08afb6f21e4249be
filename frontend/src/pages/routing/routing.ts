import type { Candidate, ExplainedPick, RoutedNode } from "../../api/types";
import { milliseconds } from "../../format/number";

/** What a candidate's score is made of, in the order in which the bar stacks it. */
export const PARTS = [
  { label: "Queue ahead", word: "the queue ahead", color: "line-2", names: ["queue"] },
  { label: "KV recompute", word: "KV recompute", color: "kv", names: ["kv"] },
  { label: "EMB misses", word: "EMB misses", color: "emb", names: ["emb", "refill"] },
  { label: "Fixed and candidates", word: "fixed costs", color: "line-3", names: ["fixed", "candidates"] },
  { label: "Rent of a second copy", word: "the rent of a second copy", color: "migr", names: ["rent"] },
  { label: "Delay of others", word: "the delay of others", color: "accent", names: ["delay"] },
] as const;

const REASONS: Record<string, string> = {
  offline: "offline",
  draining: "draining",
  excluded: "tried already, or its breaker is open",
  model_version: "serves another version",
  subset: "not among the allowed endpoints",
  forced: "another node was forced",
  stale: "not heard of lately",
  load_cap: "queue above the cap",
  share_cap: "has more than its share",
};

/** Why a node was left out, in words; empty for one that was considered. */
export function reasonOf(candidate: Candidate): string {
  return candidate.filtered && (REASONS[candidate.filtered] ?? candidate.filtered.replaceAll("_", " "));
}

export function partMs(candidate: Candidate, names: readonly string[]): number {
  return names.reduce((sum, name) => sum + (candidate.components[name] ?? 0), 0);
}

export function scoreMs(candidate: Candidate): number {
  return candidate.components.score ?? 0;
}

/** The chosen one first, then those that were considered by score, then those left out. */
export function ranked(pick: ExplainedPick): Candidate[] {
  const group = (candidate: Candidate): number => (candidate.name === pick.picked ? 0 : candidate.filtered ? 2 : 1);
  return [...pick.nodes].sort((a, b) => group(a) - group(b) || scoreMs(a) - scoreMs(b) || a.name.localeCompare(b.name));
}

/** One sentence that says why, from the numbers alone. */
export function whyPicked(pick: ExplainedPick): string {
  const [chosen, next] = ranked(pick).filter((candidate) => !candidate.filtered);
  if (!pick.picked) return "No node could take this request.";
  if (!chosen || chosen.name !== pick.picked) return `${pick.picked} was taken although its caps spoke against it: nobody else was left.`;
  if (!next) return `${chosen.name} was the only node that could take it.`;
  const ahead = scoreMs(next) - scoreMs(chosen);
  if (Math.abs(ahead) < 0.05) return `${chosen.name} and ${next.name} were as good as equal; chance or the user's hash decided.`;
  if (ahead < 0) return `${next.name} scored ${milliseconds(-ahead)} ms less, within the window in which a user's hash decides.`;
  const most = [...PARTS].sort((a, b) => partMs(next, b.names) - partMs(chosen, b.names) - partMs(next, a.names) + partMs(chosen, a.names))[0];
  return `${chosen.name} won over ${next.name} by ${milliseconds(ahead)} ms, mostly by ${most?.word ?? "chance"}.`;
}

/** Largest over mean number of picks among the nodes that are there; null while there were none. */
export function imbalance(nodes: readonly RoutedNode[]): number | null {
  const picks = nodes.filter((node) => node.phase === "ready").map((node) => node.picks_total);
  const total = picks.reduce((sum, count) => sum + count, 0);
  return total === 0 ? null : (Math.max(...picks) * picks.length) / total;
}
