import { keepPreviousData, type UseQueryResult, useQuery } from "@tanstack/react-query";
import { useMemo } from "react";
import { type Range, RANGE_SECONDS } from "../app/ranges";
import { type Columns, columnsOf, type Sample, withTail } from "../charts/columns";
import { useLive } from "../live/LiveProvider";
import { api, bodyOf } from "./client";
import { keys } from "./keys";
import type { FleetEvent, FleetSeries, NodeSeries, WhatIf } from "./types";

/** While the stream is away a reader may choose to poll. */
const POLL_MS = 10_000;
/** The stream carries every change; this only mends what it could have lost. */
const SAFETY_MS = 60_000;
/** As many nodes, tokens or runs as one page may hold. */
const ALL = 2000;

/** The rows of a list. */
async function rowsOf<Row>(call: Promise<{ data?: { results: Row[] } }>): Promise<Row[]> {
  return (await bodyOf(call)).results;
}

function useCadence(): number {
  return useLive().polling ? POLL_MS : SAFETY_MS;
}

export function useMe() {
  return useQuery({ queryKey: keys.me, queryFn: () => bodyOf(api.GET("/api/v1/me/")), staleTime: SAFETY_MS });
}

export function useFleet() {
  return useQuery({ queryKey: keys.fleet, queryFn: () => bodyOf(api.GET("/api/v1/fleet/")), refetchInterval: useCadence() });
}

export function useNodes() {
  return useQuery({
    queryKey: keys.nodes,
    queryFn: () => rowsOf(api.GET("/api/v1/nodes/", { params: { query: { page_size: ALL } } })),
    refetchInterval: useCadence(),
  });
}

/** A node with the version it was read at; every write sends that version back. */
export async function readNode(name: string) {
  const { data, response } = await api.GET("/api/v1/nodes/{name}/", { params: { path: { name } } });
  if (data === undefined) throw new Error("The control plane answered without a body.");
  return { node: data, etag: response.headers.get("ETag") ?? "" };
}

export function useNode(name: string) {
  return useQuery({ queryKey: keys.node(name), queryFn: () => readNode(name), refetchInterval: useCadence() });
}

/** A long range has coarse buckets, so it is read again less often. */
function historyMs(range: Range): number {
  return Math.min(Math.max((RANGE_SECONDS[range] * 1000) / 60, 15_000), 300_000);
}

export interface History<Document> extends Columns {
  query: UseQueryResult<Document>;
}

const NO_COLUMNS: Columns = { at: [], columns: {} };
const NO_SAMPLES: readonly Sample[] = [];

function useWithTail(document: ({ at: string[] } & object) | undefined, tail: readonly Sample[], range: Range): Columns {
  const history = useMemo(() => (document ? columnsOf(document) : NO_COLUMNS), [document]);
  return useMemo(() => withTail(history, tail, Date.now() / 1000 - RANGE_SECONDS[range]), [history, tail, range]);
}

export function useFleetHistory(range: Range): History<FleetSeries> {
  const query = useQuery({
    queryKey: keys.fleetSeries(range),
    queryFn: () => bodyOf(api.GET("/api/v1/fleet/series/", { params: { query: { range } } })),
    refetchInterval: historyMs(range),
    placeholderData: keepPreviousData,
  });
  return { query, ...useWithTail(query.data, useFleetTail(), range) };
}

/** Written by the live stream only. */
function useFleetTail(): readonly Sample[] {
  return useQuery<readonly Sample[]>({ queryKey: keys.fleetTail, enabled: false, initialData: NO_SAMPLES, gcTime: Infinity }).data;
}

/** Newest samples per node, written by the live stream only. */
export function useNodeTails(): Record<string, readonly Sample[]> {
  return useQuery<Record<string, readonly Sample[]>>({ queryKey: keys.nodeTails, enabled: false, initialData: {}, gcTime: Infinity }).data;
}

export interface NodeHistory extends History<NodeSeries> {
  /** Who set the ratio, by time; has its own times because the live tail does not carry it. */
  modes: { at: number[]; mode: (string | null)[] };
}

const NO_MODES: NodeHistory["modes"] = { at: [], mode: [] };

export function useNodeHistory(name: string, range: Range): NodeHistory {
  const query = useQuery({
    queryKey: keys.nodeSeries(name, range),
    queryFn: () => bodyOf(api.GET("/api/v1/nodes/{name}/series/", { params: { path: { name }, query: { range } } })),
    refetchInterval: historyMs(range),
    placeholderData: keepPreviousData,
  });
  const columns = useWithTail(query.data, useNodeTails()[name] ?? NO_SAMPLES, range);
  const modes = useMemo(
    () => (query.data ? { at: query.data.at.map((time) => Date.parse(time) / 1000), mode: query.data.mode } : NO_MODES),
    [query.data],
  );
  return { query, ...columns, modes };
}

export function useDecisions(name: string) {
  return useQuery({
    queryKey: keys.decisions(name),
    queryFn: () => rowsOf(api.GET("/api/v1/nodes/{name}/decisions/", { params: { path: { name } } })),
    refetchInterval: 5000,
  });
}

/** The feed: of the whole fleet, or of one target. */
export function useEvents(target = "") {
  return useQuery<FleetEvent[]>({
    queryKey: keys.events(target),
    queryFn: () => rowsOf(api.GET("/api/v1/events/", { params: { query: target ? { target } : {} } })),
    refetchInterval: useCadence(),
  });
}

export interface AuditFilter {
  actor: string;
  target: string;
  action: string;
  cursor: string;
}

export function useAudit(filter: AuditFilter) {
  const query = Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== ""));
  return useQuery({
    queryKey: keys.audit(filter),
    queryFn: () => bodyOf(api.GET("/api/v1/audit/", { params: { query } })),
    placeholderData: keepPreviousData,
  });
}

/** The router keeps these in memory only, so they are asked for while somebody looks. */
const ROUTING_MS = 5000;

export function useRouting() {
  return useQuery({ queryKey: keys.routing, queryFn: () => bodyOf(api.GET("/api/v1/routing/")), refetchInterval: ROUTING_MS, retry: false });
}

export function usePicks() {
  return useQuery({ queryKey: keys.picks, queryFn: () => bodyOf(api.GET("/api/v1/routing/picks/")), refetchInterval: ROUTING_MS, retry: false });
}

export function usePick(requestId: string) {
  return useQuery({
    queryKey: keys.pick(requestId),
    queryFn: () => bodyOf(api.GET("/api/v1/routing/picks/{request_id}/", { params: { path: { request_id: requestId } } })),
    enabled: requestId !== "",
    retry: false,
  });
}

export function useTokens() {
  return useQuery({
    queryKey: keys.tokens,
    queryFn: () => rowsOf(api.GET("/api/v1/tokens/", { params: { query: { page_size: ALL } } })),
  });
}

/** Limits that operators set per cluster. */
export function useCluster(name: string) {
  return useQuery({
    queryKey: keys.clusters,
    queryFn: () => rowsOf(api.GET("/api/v1/clusters/")),
    select: (clusters) => clusters.find((cluster) => cluster.name === name),
    staleTime: SAFETY_MS,
  });
}

/** What nodes say of themselves changes a version's row, and comes with no message of its own. */
const POLICIES_MS = 5000;

export function usePolicies() {
  return useQuery({
    queryKey: keys.policies,
    queryFn: () => rowsOf(api.GET("/api/v1/policies/", { params: { query: { page_size: ALL } } })),
    refetchInterval: POLICIES_MS,
  });
}

export function useTrainings() {
  return useQuery({
    queryKey: keys.trainings,
    queryFn: () => rowsOf(api.GET("/api/v1/training/", { params: { query: { page_size: 50 } } })),
    refetchInterval: useCadence(),
  });
}

export function useTraining(id: string) {
  return useQuery({
    queryKey: keys.training(id),
    queryFn: () => bodyOf(api.GET("/api/v1/training/{uid}/", { params: { path: { uid: id } } })),
    refetchInterval: (query) => (query.state.data && isOpen(query.state.data) ? 5000 : false),
  });
}

export function useSchedule() {
  return useQuery({ queryKey: keys.schedule, queryFn: () => bodyOf(api.GET("/api/v1/training/schedule/")) });
}

export function useWhatIfs() {
  return useQuery({
    queryKey: keys.whatifs,
    queryFn: () => rowsOf(api.GET("/api/v1/whatifs/", { params: { query: { page_size: 50 } } })),
    refetchInterval: useCadence(),
  });
}

export function useWhatIf(id: string | undefined) {
  return useQuery({
    queryKey: keys.whatif(id ?? ""),
    queryFn: () => bodyOf(api.GET("/api/v1/whatifs/{uid}/", { params: { path: { uid: id ?? "" } } })),
    enabled: id !== undefined,
    refetchInterval: (query) => (query.state.data && isOpen(query.state.data) ? 5000 : false),
  });
}

export interface Figure {
  data: Record<string, unknown>[];
  layout: Record<string, unknown>;
}

/** Only a finished run has a figure, and it never changes again. */
export function useFigure(id: string, enabled: boolean) {
  return useQuery({
    queryKey: keys.figure(id),
    queryFn: async () => (await bodyOf(api.GET("/api/v1/whatifs/{uid}/figure/", { params: { path: { uid: id } } }))) as unknown as Figure,
    enabled,
    staleTime: Infinity,
  });
}

export function isOpen(run: Pick<WhatIf, "status">): boolean {
  return run.status === "queued" || run.status === "running";
}
