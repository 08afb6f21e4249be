import type { Range } from "../app/ranges";

/** Names of what is cached; the live stream writes under the same ones. */
export const keys = {
  me: ["me"] as const,
  fleet: ["fleet"] as const,
  fleetTail: ["fleet-tail"] as const,
  fleetSeries: (range: Range) => ["fleet-series", range] as const,
  nodes: ["nodes"] as const,
  node: (name: string) => ["node", name] as const,
  nodeTails: ["node-tails"] as const,
  nodeSeries: (name: string, range: Range) => ["node-series", name, range] as const,
  decisions: (name: string) => ["decisions", name] as const,
  events: (target: string) => ["events", target] as const,
  audit: (filter: object) => ["audit", filter] as const,
  routing: ["routing"] as const,
  picks: ["picks"] as const,
  pick: (id: string) => ["pick", id] as const,
  tokens: ["tokens"] as const,
  clusters: ["clusters"] as const,
  policies: ["policies"] as const,
  trainings: ["trainings"] as const,
  training: (id: string) => ["training", id] as const,
  schedule: ["training-schedule"] as const,
  whatifs: ["whatifs"] as const,
  whatif: (id: string) => ["whatif", id] as const,
  figure: (id: string) => ["whatif-figure", id] as const,
};
