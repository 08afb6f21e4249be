import type { QueryClient } from "@tanstack/react-query";
import { keys } from "../api/keys";
import type { Fleet, FleetEvent, Node, TrainingRun, WhatIf } from "../api/types";
import type { Sample } from "../charts/columns";
import type { StreamMessage } from "./connection";

/** What each message of the stream means for what is cached. */

/** More lines than anybody scrolls through; older ones are in the audit log. */
const EVENTS_MAX = 200;
/** Samples of the last 15 minutes at one a second: what the shortest range of a chart can show. */
const TAIL_LENGTH = 900;
/** In a large fleet a tile shows a minute and a half, and the browser keeps no more. */
const TAIL_LENGTH_LARGE = 90;
const LARGE_FLEET = 32;

/** A node as the stream tells it: the same for everybody, so without what one may do. */
export type NodeDelta = Omit<Node, "allowed_actions">;

export function appendSample(tail: readonly Sample[], sample: Sample, length: number): readonly Sample[] {
  const last = tail.at(-1);
  if (last && sample.atSeconds <= last.atSeconds) return tail;
  return [...tail.slice(Math.max(0, tail.length - length + 1)), sample];
}

/** Quantile of values in order, between its two neighbours as the server does it. */
export function quantile(ordered: number[], share: number): number | null {
  if (ordered.length === 0) return null;
  const place = (ordered.length - 1) * share;
  const below = ordered[Math.floor(place)] as number;
  const above = ordered[Math.ceil(place)] as number;
  return below + (above - below) * (place - Math.floor(place));
}

/** Spread of the ratios that nodes reported, under the names of the series. */
function ratioQuantiles(nodes: Node[]): Record<string, number | null> {
  const ratios = nodes.flatMap((node) => (node.status.phase === "offline" || node.status.emb_ratio === null ? [] : [node.status.emb_ratio]));
  ratios.sort((a, b) => a - b);
  return Object.fromEntries([10, 25, 50, 75, 90].map((percent) => [`emb_ratio_p${percent}`, quantile(ratios, percent / 100)]));
}

export function fleetSample(fleet: Fleet, nodes: Node[]): Sample {
  return {
    atSeconds: Date.parse(fleet.at) / 1000,
    values: {
      latency_ms_p50: fleet.latency_ms_p50,
      latency_ms_p99: fleet.latency_ms_p99,
      requests_per_second: fleet.requests_per_second,
      emb_hit_ratio: fleet.emb_hit_ratio,
      kv_hit_ratio: fleet.kv_hit_ratio,
      ...ratioQuantiles(nodes),
    },
  };
}

export function nodeSample(node: NodeDelta): Sample | null {
  const telemetry = node.status.telemetry;
  if (!telemetry) return null;
  return {
    atSeconds: Date.parse(telemetry.at) / 1000,
    values: {
      emb_ratio: telemetry.emb_ratio,
      target_emb_ratio: telemetry.target_emb_ratio,
      recommended_emb_ratio: telemetry.recommended_emb_ratio,
      emb_hit_ratio: telemetry.emb_hit_ratio,
      kv_hit_ratio: telemetry.kv_hit_ratio,
      latency_ms_p50: telemetry.latency_ms_p50,
      latency_ms_p99: telemetry.latency_ms_p99,
      requests_per_second: telemetry.requests_per_second,
      queue_depth: telemetry.queue_depth,
      queue_ms: telemetry.stages.queue_ms,
      emb_ms: telemetry.stages.emb_ms,
      kv_ms: telemetry.stages.kv_ms,
      compute_ms: telemetry.stages.compute_ms,
    },
  };
}

/** The list with changed nodes replaced; a node that is new to it is not invented but asked for. */
export function mergeNodes(nodes: Node[], deltas: NodeDelta[]): { nodes: Node[]; unknown: string[] } {
  const changed = new Map(deltas.map((delta) => [delta.metadata.name, delta]));
  const merged = nodes.map((node) => {
    const delta = changed.get(node.metadata.name);
    return delta ? mergeNode(node, delta) : node;
  });
  const known = new Set(nodes.map((node) => node.metadata.name));
  return { nodes: merged, unknown: deltas.map((delta) => delta.metadata.name).filter((name) => !known.has(name)) };
}

/** A node's page keeps the prediction curve: the stream leaves it out. */
export function mergeNode(node: Node, delta: NodeDelta): Node {
  const landscape = node.status.telemetry?.landscape ?? [];
  const telemetry = delta.status.telemetry && { ...delta.status.telemetry, landscape };
  return { ...node, ...delta, status: { ...delta.status, telemetry } };
}

export function prependEvent(events: FleetEvent[], event: FleetEvent): FleetEvent[] {
  if (events.some((known) => known.id === event.id)) return events;
  return [event, ...events].sort((a, b) => b.id - a.id).slice(0, EVENTS_MAX);
}

/** Newest first; a list row never carries the series, so a row that does is cut by the detail query alone. */
export function mergeRun<Run extends { id: string }>(runs: Run[], run: Run): Run[] {
  const known = runs.some((entry) => entry.id === run.id);
  return known ? runs.map((entry) => (entry.id === run.id ? run : entry)) : [run, ...runs];
}

interface CachedNode {
  node: Node;
  etag: string;
}

function applyNodes(client: QueryClient, deltas: NodeDelta[]): void {
  let missing = false;
  client.setQueryData<Node[]>(keys.nodes, (nodes) => {
    if (!nodes) return nodes;
    const merged = mergeNodes(nodes, deltas);
    missing = merged.unknown.length > 0;
    return merged.nodes;
  });
  if (missing) void client.invalidateQueries({ queryKey: keys.nodes });
  const length = deltas.length > LARGE_FLEET ? TAIL_LENGTH_LARGE : TAIL_LENGTH;
  client.setQueryData<Record<string, readonly Sample[]>>(keys.nodeTails, (tails = {}) => {
    const next = { ...tails };
    for (const delta of deltas) {
      const sample = nodeSample(delta);
      if (sample) next[delta.metadata.name] = appendSample(next[delta.metadata.name] ?? [], sample, length);
    }
    return next;
  });
  for (const delta of deltas) {
    const key = keys.node(delta.metadata.name);
    const cached = client.getQueryData<CachedNode>(key);
    if (!cached) continue;
    // What one may do and the version to send back follow from the spec; they are not in the stream.
    if (cached.node.metadata.resource_version !== delta.metadata.resource_version) void client.invalidateQueries({ queryKey: key });
    else client.setQueryData<CachedNode>(key, { ...cached, node: mergeNode(cached.node, delta) });
  }
}

function applyFleet(client: QueryClient, fleet: Fleet): void {
  const nodes = client.getQueryData<Node[]>(keys.nodes) ?? [];
  client.setQueryData(keys.fleet, fleet);
  // Before the nodes are known their spread is not; the history has this second anyway.
  if (nodes.length === 0) return;
  client.setQueryData<readonly Sample[]>(keys.fleetTail, (tail = []) => appendSample(tail, fleetSample(fleet, nodes), TAIL_LENGTH));
}

function applyEvent(client: QueryClient, event: FleetEvent): void {
  for (const target of ["", event.target]) {
    client.setQueryData<FleetEvent[]>(keys.events(target), (events) => (events ? prependEvent(events, event) : events));
  }
}

function applyRun(client: QueryClient, run: WhatIf): void {
  client.setQueryData<WhatIf[]>(keys.whatifs, (runs) => (runs ? mergeRun(runs, run) : runs));
  const detail = client.getQueryData<WhatIf>(keys.whatif(run.id));
  if (!detail) return;
  if (run.status === "succeeded") void client.invalidateQueries({ queryKey: keys.whatif(run.id) });
  else client.setQueryData<WhatIf>(keys.whatif(run.id), { ...run, result: detail.result });
}

function applyTraining(client: QueryClient, run: TrainingRun): void {
  client.setQueryData<TrainingRun[]>(keys.trainings, (runs) => (runs ? mergeRun(runs, run) : runs));
  client.setQueryData<TrainingRun>(keys.training(run.id), run);
  if (run.status === "succeeded") void client.invalidateQueries({ queryKey: keys.policies });
}

interface Snapshot {
  fleet?: Fleet;
  nodes?: Node[];
  events?: FleetEvent[];
  jobs?: WhatIf[];
}

function applySnapshot(client: QueryClient, { fleet, nodes, events, jobs }: Snapshot): void {
  if (nodes) client.setQueryData<Node[]>(keys.nodes, nodes);
  if (fleet) applyFleet(client, fleet);
  if (events) client.setQueryData<FleetEvent[]>(keys.events(""), events);
  if (jobs) client.setQueryData<WhatIf[]>(keys.whatifs, (runs) => (runs ? jobs.reduceRight(mergeRun, runs) : runs));
}

export function applyMessage(client: QueryClient, { type, data }: StreamMessage): void {
  switch (type) {
    case "fleet.tick":
      return applyFleet(client, data as Fleet);
    case "nodes.delta":
      return applyNodes(client, data as NodeDelta[]);
    case "event":
      return applyEvent(client, data as FleetEvent);
    case "job.progress":
      return applyRun(client, data as WhatIf);
    case "training.progress":
      return applyTraining(client, data as TrainingRun);
    case "snapshot":
      return applySnapshot(client, data as Snapshot);
    case "resync":
      // What was missed is gone: read everything that is on the screen again.
      void client.invalidateQueries();
      return undefined;
    default:
      return undefined;
  }
}
