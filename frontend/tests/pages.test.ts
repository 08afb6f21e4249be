import { describe, expect, it } from "vitest";
import { ApiProblem } from "../src/api/problem";
import type { Condition, ExplainedPick, FleetEvent, GuardRails, Node, Preview, WhatIfRun } from "../src/api/types";
import { asRange, nextRange } from "../src/app/ranges";
import { readKey, SEQUENCE_MS, SHORTCUTS } from "../src/app/shortcuts";
import { changes, filterText, parseFilter } from "../src/pages/audit/audit";
import { fold } from "../src/pages/fleet/eventLook";
import { awaitsTail } from "../src/pages/fleet/FleetKpis";
import { asFilter, counts, matches, modeOf, sorted } from "../src/pages/fleet/nodeFilter";
import { tileLabel } from "../src/pages/fleet/NodeTile";
import { toneOf } from "../src/pages/node/ConditionsPanel";
import { labelRows } from "../src/pages/node/landscape";
import { shrinks, sizeFaults, sizeStanding } from "../src/pages/node/resize";
import { deservesReview, type Draft, faults, ratioFault } from "../src/pages/node/take";
import { imbalance, ranked, whyPicked } from "../src/pages/routing/routing";
import { missing, requestOf, START } from "../src/pages/whatif/scenario";
import { bestStatic, controllerOf, finding } from "../src/pages/whatif/summary";

const RAILS = { emb_ratio_min: 0.1, emb_ratio_max: 0.9 } as GuardRails;

function node(name: string, mode: string, latency: number | null, phase = "ready"): Node {
  return {
    metadata: { name },
    spec: { mode: "auto" },
    status: { phase, mode, emb_ratio: 0.42, telemetry: { latency_ms_p99: latency, slo_ms: 50, emb_hit_ratio: 0.9, kv_hit_ratio: null, queue_depth: 3 } },
  } as unknown as Node;
}

describe("the fleet in numbers", () => {
  it("says what a P99 waits for while requests are answered, and nothing of it where none are", () => {
    expect(awaitsTail({ latency_ms_p50: 15, latency_ms_p99: null })).toBe(true);
    expect(awaitsTail({ latency_ms_p50: 15, latency_ms_p99: 70 })).toBe(false);
    expect(awaitsTail({ latency_ms_p50: null, latency_ms_p99: null })).toBe(false);
  });
});

describe("the grid of nodes", () => {
  const nodes = [node("n10", "auto", 20), node("n9", "auto", 20), node("calm", "override", 30), node("hot", "auto", 51), node("gone", "auto", 90, "offline")];

  it("puts trouble first and does not let numbers of one urgency dance", () => {
    expect(sorted(nodes, "attention").map((entry) => entry.metadata.name)).toEqual(["hot", "gone", "calm", "n9", "n10"]);
    expect(sorted(nodes, "latency")[0]?.metadata.name).toBe("gone");
  });

  it("counts what each filter would show, and an offline node is never over SLO by an old number", () => {
    expect(counts(nodes)).toMatchObject({ all: 5, attention: 2, override: 1, offline: 1, recovery: 0 });
    expect(modeOf(nodes[4] as Node)).toBe("offline");
    expect(matches(nodes[0] as Node, "all", "N1")).toBe(true);
    expect(asFilter("nonsense")).toBe("all");
  });

  it("says a tile in one sentence", () => {
    expect(tileLabel(nodes[3] as Node)).toBe("hot, Auto, P99 51.0 ms, over SLO, EMB 42 %, EMB hit 90 %, KV hit n/a, queue 3");
    expect(tileLabel(nodes[4] as Node)).toBe("gone, Offline, no data");
  });
});

describe("why a request went to its node", () => {
  const candidate = (name: string, score: number, filtered = "") => ({ name, filtered, components: { score, queue: score - 4, kv: 4 } });
  const pick = (picked: string | null, ...nodes: ReturnType<typeof candidate>[]) => ({ picked, nodes }) as unknown as ExplainedPick;

  it("puts the chosen one first, then by score, then those left out", () => {
    const order = ranked(pick("b", candidate("c", 9), candidate("d", 1, "offline"), candidate("a", 7), candidate("b", 5)));
    expect(order.map((entry) => entry.name)).toEqual(["b", "a", "c", "d"]);
  });

  it("says why in one sentence, from the numbers alone", () => {
    expect(whyPicked(pick("a", candidate("a", 5), candidate("b", 8)))).toBe("a won over b by 3.0 ms, mostly by the queue ahead.");
    expect(whyPicked(pick("a", candidate("a", 5), candidate("b", 5.01)))).toContain("as good as equal");
    expect(whyPicked(pick("b", candidate("a", 5), candidate("b", 5.6)))).toContain("within the window");
    expect(whyPicked(pick("a", candidate("a", 5), candidate("b", 1, "stale")))).toBe("a was the only node that could take it.");
    expect(whyPicked(pick("a", candidate("a", 5, "load_cap"), candidate("b", 1, "offline")))).toContain("nobody else was left");
    expect(whyPicked(pick(null, candidate("a", 5, "subset")))).toBe("No node could take this request.");
  });

  it("measures balance among those that are there", () => {
    const node = (picks_total: number, phase = "ready") => ({ picks_total, phase }) as never;
    expect(imbalance([node(30), node(10), node(500, "offline")])).toBe(1.5);
    expect(imbalance([node(0)])).toBeNull();
  });
});

describe("taking a node by hand", () => {
  const limits = { rails: RAILS, ttlSecondsMin: 5, ttlSecondsMax: 43_200 };
  const draft: Draft = { verb: "override", embPercent: 45, ttlSeconds: 1800, reason: "flash sale" };
  const fields = (change: Partial<Draft>) => faults({ ...draft, ...change }, limits).map((fault) => fault.field);

  it("finds every fault the server would name, by the same field", () => {
    expect(fields({})).toEqual([]);
    expect(fields({ embPercent: 9.9, ttlSeconds: 0, reason: "  " })).toEqual(["emb_ratio", "ttl_seconds", "reason"]);
    expect(fields({ embPercent: NaN })).toEqual(["emb_ratio"]);
    expect(fields({ ttlSeconds: 43_201 })).toEqual(["ttl_seconds"]);
    expect(fields({ reason: "x".repeat(201) })).toEqual(["reason"]);
    expect(fields({ verb: "pin", ttlSeconds: null })).toEqual([]);
    expect(fields({ verb: "release", embPercent: null, ttlSeconds: null })).toEqual([]);
    expect(ratioFault(90, RAILS)).toBeNull();
  });

  it("asks again only for what is clearly slower or over SLO", () => {
    const preview = (before: number, after: number, warnings: string[]) =>
      ({ before: { predicted: { latency_ms_p99: before } }, after: { predicted: { latency_ms_p99: after } }, warnings }) as unknown as Preview;
    expect(deservesReview(preview(40, 40.1, ["slower_than_now"]))).toBe(false);
    expect(deservesReview(preview(40, 44, ["slower_than_now"]))).toBe(true);
    expect(deservesReview(preview(70, 60, ["over_slo"]))).toBe(true);
    expect(deservesReview(undefined)).toBe(false);
  });

  it("reads a refusal by its field, however the pointer is written", () => {
    const problem = new ApiProblem(422, { detail: "no", errors: [{ pointer: "/emb_ratio", code: "outside_guard_rails", detail: "too high" }] });
    expect(problem.about("emb_ratio")).toBe("too high");
    expect(problem.about("reason")).toBeNull();
    expect(new ApiProblem(503, {}).sentence).toContain("503");
  });
});

describe("sizing a pool", () => {
  const MIB = 1 << 20;
  const limits = { bytesMin: MIB, bytesMax: 64 * MIB };
  const fields = (size: number | null | undefined, reason = "a neighbour") => sizeFaults(size, reason, limits).map((fault) => fault.field);

  it("finds every fault the server would name, by the same field", () => {
    expect([fields(32 * MIB), fields(MIB), fields(64 * MIB), fields(null)]).toEqual([[], [], [], []]);
    expect([fields(undefined), fields(MIB - 1), fields(64 * MIB + 1)]).toEqual([["pool_bytes"], ["pool_bytes"], ["pool_bytes"]]);
    expect(fields(undefined, " ")).toEqual(["pool_bytes", "reason"]);
    expect(sizeFaults(1, "whatever", { bytesMin: null, bytesMax: null })).toEqual([]);
  });

  it("asks for the name only when memory is taken away", () => {
    const preview = (before: number, after: number) => ({ before: { pool_bytes: before }, after: { pool_bytes: after } }) as Preview;
    expect([shrinks(preview(2, 1)), shrinks(preview(1, 2)), shrinks(preview(1, 1)), shrinks(undefined)]).toEqual([true, false, false, false]);
  });

  it("says what was asked for, what there is and what was refused", () => {
    const pool = (bytes: number) => ({ requested_bytes: bytes / 2, granted_bytes: bytes / 2, used_bytes: 0 });
    const standing = (size: number | null, requested: number, now: number, observed = 2, refused = "") =>
      sizeStanding({
        metadata: { generation: 2 },
        spec: { pool_bytes: size, pool_bytes_max: 64 * MIB },
        status: {
          observed_generation: observed,
          conditions: [{ type: "SpecApplied", reason: refused ? "Refused" : "Observed", message: refused }],
          telemetry: { emb: pool(requested), kv: pool(requested), pool_bytes: now },
        },
      } as unknown as Node);
    expect(standing(null, 64 * MIB, 64 * MIB)).toBeNull();
    expect(standing(32 * MIB, 64 * MIB, 64 * MIB, 1)).toBe("Set to 32.0 MiB; the node has not confirmed it yet.");
    expect(standing(32 * MIB, 32 * MIB, 48 * MIB)).toBe("Shrinking from 48.0 MiB to 32.0 MiB.");
    expect(standing(null, 64 * MIB, 48 * MIB)).toBe("Growing from 48.0 MiB to 64.0 MiB.");
    expect(standing(32 * MIB, 32 * MIB, 32 * MIB)).toBe("Set to 32.0 MiB of 64.0 MiB.");
    expect(standing(32 * MIB, 16 * MIB, 16 * MIB, 1, "invalid_request: pool_bytes 33554432 must be 1 to 2")).toContain("The node refused 32.0 MiB");
    expect(standing(32 * MIB, 64 * MIB, 64 * MIB, 1, "outside_guard_rails: no")).toContain("not confirmed");
  });
});

describe("conditions", () => {
  it("are news by their meaning, not by True and False", () => {
    const tone = (type: string, status: string) => toneOf({ type, status } as Condition);
    expect([tone("Reachable", "True"), tone("Reachable", "False"), tone("ReuseStale", "False"), tone("ReuseStale", "True")]).toEqual(["good", "bad", "good", "bad"]);
    expect(["SignalMissing", "PolicyMissing", "Recovering", "PolicyDemoted"].map((type) => tone(type, "False"))).toEqual(["good", "good", "good", "good"]);
    expect([tone("Migrating", "True"), tone("Migrating", "False"), tone("Ready", "Unknown")]).toEqual(["plain", "plain", "unknown"]);
  });
});

describe("keys and ranges", () => {
  it("read sequences in time only", () => {
    const first = readKey({ prefix: null, atMs: 0 }, "g", 100);
    expect(first.hit).toBeNull();
    expect(readKey(first.memory, "f", 200).hit).toBe("g f");
    expect(readKey(first.memory, "f", 100 + SEQUENCE_MS + 1).hit).toBe("f");
    expect(readKey({ prefix: null, atMs: 0 }, " ", 0).hit).toBe("Space");
    expect(readKey({ prefix: null, atMs: 0 }, "q", 0).hit).toBeNull();
  });

  it("name every shortcut once", () => {
    expect(new Set(SHORTCUTS.map((entry) => entry.keys)).size).toBe(SHORTCUTS.length);
  });

  it("keep ranges inside what the API serves", () => {
    expect(asRange("3y")).toBe("15m");
    expect(nextRange("15m", -1)).toBe("15m");
    expect(nextRange("1h", 1)).toBe("6h");
    expect(nextRange("7d", 1)).toBe("7d");
  });
});

describe("history in words", () => {
  it("folds a run of the same thing about the same target", () => {
    const event = (id: number, kind: string, target: string) => ({ id, kind, target, actor: "" }) as FleetEvent;
    const lines = fold([event(5, "ratio_moved", "a"), event(4, "ratio_moved", "a"), event(3, "ratio_moved", "b"), event(2, "ratio_moved", "a")]);
    expect(lines.map((line) => [line.event.id, line.folded])).toEqual([[5, 1], [3, 0], [2, 0]]);
  });

  it("reads and writes the audit filter", () => {
    const filter = parseFilter("  target:node-0 action:node.pin ");
    expect(filter).toEqual({ actor: "", target: "node-0", action: "node.pin" });
    expect(parseFilter(filterText(filter))).toEqual(filter);
    expect(parseFilter("node-7").target).toBe("node-7");
  });

  it("shows what was taken away, what came and what stayed", () => {
    expect(changes({ mode: "auto", generation: 1 }, { mode: "pin", generation: 1, emb_ratio: 0.4 })).toEqual([
      { sign: "-", name: "mode", value: '"auto"' },
      { sign: "+", name: "mode", value: '"pin"' },
      { sign: " ", name: "generation", value: "1" },
      { sign: "+", name: "emb_ratio", value: "0.4" },
    ]);
    expect(changes(null, null)).toEqual([]);
  });
});

describe("a what-if", () => {
  const run = (label: string, method: string, p99: number | null) => ({ label, method, cell: { latency_ms_p99: p99 } }) as WhatIfRun;

  it("is asked in shares and leaves out what is not said", () => {
    expect(requestOf(START)).toEqual({ workload: "burst", static_ratios: [0.3, 0.6], nodes: 4, duration_seconds: 300, seed: 1, router: "joint", method: "helm" });
    expect(requestOf({ ...START, ratePerSecond: 40 }).rate_per_second).toBe(40);
    expect(missing({ ...START, nodes: null })).toEqual(["nodes"]);
  });

  it("is judged against the better fixed ratio, and noise is not called a finding", () => {
    const runs = [run("static 0.30", "static-0.30", 80), run("static 0.60", "static-0.60", 70), run("controller", "b5", 56)];
    expect(bestStatic(runs)?.label).toBe("static 0.60");
    expect(controllerOf(runs)?.label).toBe("controller");
    expect(finding(runs)).toContain("20 % below");
    expect(finding([...runs.slice(0, 2), run("controller", "b5", 77)])).toContain("10 % above");
    expect(finding([...runs.slice(0, 2), run("controller", "b5", 70.5)])).toContain("No clear difference");
    expect(finding([...runs.slice(0, 2), run("controller", "b5", null)])).toBeNull();
  });
});

describe("the landscape", () => {
  it("has its marks below a line of the SLO that is as high as they are, and at the top otherwise", () => {
    expect(labelRows(3, 16, null)).toEqual([26, 39, 52]);
    expect(labelRows(3, 16, 200)).toEqual([26, 39, 52]);
    expect(labelRows(3, 16, 75)).toEqual([26, 39, 52]);
    expect(labelRows(3, 16, 74)).toEqual([87, 100, 113]);
    expect(labelRows(3, 16, 47)).toEqual([60, 73, 86]);
  });
});
