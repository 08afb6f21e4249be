import type { Node } from "../../api/types";

/** Which nodes are shown and in which order: pure, so that the URL alone decides. */

export const FILTERS = ["all", "attention", "recovery", "override", "pin", "draining", "offline"] as const;
export type Filter = (typeof FILTERS)[number];

export const SORTS = ["attention", "name", "latency", "ratio"] as const;
export type Sort = (typeof SORTS)[number];

/** Who sets the ratio, or that nobody can: the one word a tile shows. */
export function modeOf(node: Node): string {
  if (node.status.phase === "offline") return "offline";
  if (node.status.phase === "draining") return "draining";
  return node.status.mode ?? node.spec.mode;
}

export function isOverSlo(node: Node): boolean {
  const telemetry = node.status.telemetry;
  if (node.status.phase === "offline" || !telemetry || telemetry.latency_ms_p99 === null) return false;
  return telemetry.latency_ms_p99 > telemetry.slo_ms;
}

export function needsAttention(node: Node): boolean {
  return isOverSlo(node) || ["offline", "recovery", "demoted"].includes(modeOf(node));
}

export function matches(node: Node, filter: Filter, text: string): boolean {
  if (text && !node.metadata.name.toLowerCase().includes(text.trim().toLowerCase())) return false;
  if (filter === "all") return true;
  if (filter === "attention") return needsAttention(node);
  return modeOf(node) === filter;
}

export function counts(nodes: Node[]): Record<Filter, number> {
  const result = Object.fromEntries(FILTERS.map((filter) => [filter, 0])) as Record<Filter, number>;
  for (const node of nodes) {
    for (const filter of FILTERS) if (matches(node, filter, "")) result[filter] += 1;
  }
  return result;
}

const BY_NAME = new Intl.Collator("en", { numeric: true });

function byName(a: Node, b: Node): number {
  return BY_NAME.compare(a.metadata.name, b.metadata.name);
}

function latency(node: Node): number {
  return node.status.telemetry?.latency_ms_p99 ?? -1;
}

/** Over SLO first, then offline, recovery, held by hand, and the rest. */
function urgency(node: Node): number {
  if (isOverSlo(node)) return 0;
  const order = ["offline", "demoted", "recovery", "override", "pin", "draining"];
  const place = order.indexOf(modeOf(node));
  return place < 0 ? order.length + 1 : place + 1;
}

const ORDER: Record<Sort, (a: Node, b: Node) => number> = {
  // Within one urgency by name and not by a number that changes every second: tiles must not dance.
  attention: (a, b) => urgency(a) - urgency(b) || byName(a, b),
  name: byName,
  latency: (a, b) => latency(b) - latency(a) || byName(a, b),
  ratio: (a, b) => (b.status.emb_ratio ?? -1) - (a.status.emb_ratio ?? -1) || byName(a, b),
};

export function sorted(nodes: Node[], sort: Sort): Node[] {
  return [...nodes].sort(ORDER[sort]);
}

export function asFilter(text: string | null): Filter {
  return FILTERS.find((filter) => filter === text) ?? "all";
}

export function asSort(text: string | null): Sort {
  return SORTS.find((sort) => sort === text) ?? "attention";
}
