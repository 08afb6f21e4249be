import type { WhatIf, WhatIfRequest } from "../../api/types";

/** What may be asked, in words; the values are the API's own. */

export const WORKLOADS: { value: WhatIfRequest["workload"]; label: string; hint: string }[] = [
  { value: "steady", label: "Steady", hint: "The same mix of users all the time." },
  { value: "trend", label: "Trend", hint: "Interest drifts slowly from old items to new ones." },
  { value: "burst", label: "Burst", hint: "A wave of new users and long histories in the middle." },
  { value: "demo", label: "Demo", hint: "The schedule of regimes that the load generator plays." },
];

export const ROUTERS: { value: NonNullable<WhatIfRequest["router"]>; label: string }[] = [
  { value: "joint", label: "Joint: residency, locality, load" },
  { value: "kv-affinity", label: "KV affinity" },
  { value: "consistent-hash", label: "Consistent hash" },
  { value: "least-loaded", label: "Least loaded" },
  { value: "round-robin", label: "Round robin" },
];

/** Methods by name: what the simulator calls them, and what people do. */
export const METHODS: { value: NonNullable<WhatIfRequest["method"]>; label: string }[] = [
  { value: "helm", label: "HELM: learned, three layers" },
  { value: "paper", label: "Paper: seven features, seven steps" },
  { value: "b7", label: "B7: marginal value, the tail priced in" },
  { value: "b5", label: "B5: marginal value of both caches" },
];

export interface Draft {
  workload: WhatIfRequest["workload"];
  firstPercent: number | null;
  secondPercent: number | null;
  nodes: number | null;
  durationSeconds: number | null;
  seed: number | null;
  ratePerSecond: number | null;
  router: NonNullable<WhatIfRequest["router"]>;
  method: NonNullable<WhatIfRequest["method"]>;
}

export const START: Draft = {
  workload: "burst",
  firstPercent: 30,
  secondPercent: 60,
  nodes: 4,
  durationSeconds: 300,
  seed: 1,
  ratePerSecond: null,
  router: "joint",
  method: "helm",
};

/** A form filled like an earlier run. */
export function draftOf(run: WhatIf): Draft {
  const { scenario } = run;
  return {
    workload: WORKLOADS.find((entry) => entry.value === scenario.workload)?.value ?? START.workload,
    firstPercent: (scenario.static_ratios[0] ?? 0.3) * 100,
    secondPercent: (scenario.static_ratios[1] ?? 0.6) * 100,
    nodes: scenario.nodes,
    durationSeconds: scenario.duration_seconds,
    seed: scenario.seed,
    ratePerSecond: scenario.rate_per_second,
    router: ROUTERS.find((entry) => entry.value === scenario.router)?.value ?? START.router,
    method: METHODS.find((entry) => entry.value === scenario.method)?.value ?? START.method,
  };
}

export function requestOf(draft: Draft): WhatIfRequest {
  return {
    workload: draft.workload,
    static_ratios: [(draft.firstPercent ?? NaN) / 100, (draft.secondPercent ?? NaN) / 100],
    nodes: draft.nodes ?? 0,
    duration_seconds: draft.durationSeconds ?? 0,
    seed: draft.seed ?? 0,
    router: draft.router,
    method: draft.method,
    ...(draft.ratePerSecond === null ? {} : { rate_per_second: draft.ratePerSecond }),
  };
}

/** What is missing before it makes sense to ask the server. */
export function missing(draft: Draft): (keyof Draft)[] {
  const needed: (keyof Draft)[] = ["firstPercent", "secondPercent", "nodes", "durationSeconds", "seed"];
  return needed.filter((name) => draft[name] === null);
}

export function titleOf(run: Pick<WhatIf, "scenario">): string {
  const { scenario } = run;
  const word = WORKLOADS.find((entry) => entry.value === scenario.workload)?.label ?? scenario.workload;
  return `${word}, ${scenario.nodes} ${scenario.nodes === 1 ? "node" : "nodes"}`;
}
