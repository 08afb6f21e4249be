import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { keys } from "../src/api/keys";
import type { Fleet, FleetEvent, Node, WhatIf } from "../src/api/types";
import { appendSample, applyMessage, mergeNodes, prependEvent, quantile } from "../src/live/apply";
import { retryDelayMs } from "../src/live/backoff";
import { LiveConnection, type StreamMessage } from "../src/live/connection";
import { indicator, type Link, type LinkAction, NO_LINK, reduceLink } from "../src/live/link";

function replay(actions: LinkAction[]): Link {
  return actions.reduce(reduceLink, NO_LINK);
}

describe("the state of the stream", () => {
  it("is live while messages come, stale after five seconds, offline after a minute", () => {
    const link = replay([{ type: "dialled" }, { type: "opened" }, { type: "message", seq: "1-0", atMs: 1000 }]);
    expect(indicator(link, 1000 + 4999)).toBe("live");
    expect(indicator(link, 1000 + 5000)).toBe("stale");
    expect(indicator(link, 1000 + 60_000)).toBe("offline");
    expect(indicator(NO_LINK, 1e12)).toBe("connecting");
  });

  it("is stale at once when the socket closes, counts from the last message, and says how long the gap was", () => {
    const lost = replay([{ type: "message", seq: "1-0", atMs: 1000 }, { type: "lost", atMs: 3000, retryAtMs: 3700 }]);
    expect(indicator(lost, 3001)).toBe("stale");
    expect(lost).toMatchObject({ lostAtMs: 1000, attempt: 1, retryAtMs: 3700 });
    const again = reduceLink(reduceLink(lost, { type: "lost", atMs: 4000, retryAtMs: 6000 }), { type: "message", seq: "9-0", atMs: 11_000 });
    expect(again).toMatchObject({ lostAtMs: null, attempt: 0, filledGapMs: 10_000, lastSeq: "9-0" });
    expect(reduceLink(again, { type: "announced" }).filledGapMs).toBeNull();
  });

  it("backs off 1, 2, 4, 8, at most 15 s, half of it by chance", () => {
    expect([0, 1, 2, 3, 4, 99].map((attempt) => retryDelayMs(attempt, 1))).toEqual([1000, 2000, 4000, 8000, 15_000, 15_000]);
    expect(retryDelayMs(2, 0)).toBe(2000);
  });
});

class FakeSocket {
  static made: FakeSocket[] = [];
  readyState: number = WebSocket.CONNECTING;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  constructor(readonly url: string) {
    FakeSocket.made.push(this);
  }
  open(): void {
    this.readyState = WebSocket.OPEN;
    this.onopen?.();
  }
  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  close(code = 1006): void {
    this.readyState = WebSocket.CLOSED;
    this.onclose?.({ code });
  }
}

describe("the connection", () => {
  const heard: StreamMessage[] = [];
  let actions: LinkAction[] = [];
  let refusals = 0;
  beforeEach(() => {
    vi.useFakeTimers();
    FakeSocket.made = [];
    heard.length = 0;
    actions = [];
    refusals = 0;
  });
  afterEach(() => vi.useRealTimers());

  function connection(): LiveConnection {
    const environment = { open: (url: string) => new FakeSocket(url) as unknown as WebSocket, nowMs: () => Date.now(), random: () => 1 };
    return new LiveConnection((from) => `ws://x/?from=${from ?? ""}`, (message) => heard.push(message), (action) => actions.push(action), () => refusals++, environment);
  }
  const last = (): FakeSocket => FakeSocket.made.at(-1) as FakeSocket;

  it("resumes from the last sequence it saw", () => {
    connection().start();
    last().open();
    last().say({ type: "fleet.tick", seq: "17-1", ts: "", topic: "fleet", data: {} });
    last().close();
    expect(FakeSocket.made).toHaveLength(1);
    vi.advanceTimersByTime(1000);
    expect(FakeSocket.made.map((socket) => socket.url)).toEqual(["ws://x/?from=", "ws://x/?from=17-1"]);
  });

  it("waits longer each time, and starts over after a message", () => {
    connection().start();
    for (const waitMs of [1000, 2000, 4000]) {
      const count = FakeSocket.made.length;
      last().close();
      vi.advanceTimersByTime(waitMs - 1);
      expect(FakeSocket.made).toHaveLength(count);
      vi.advanceTimersByTime(1);
      expect(FakeSocket.made).toHaveLength(count + 1);
    }
    last().open();
    last().say({ type: "event", seq: "1-0", ts: "", topic: "events", data: {} });
    last().close();
    vi.advanceTimersByTime(1000);
    expect(FakeSocket.made).toHaveLength(5);
  });

  it("gives up a socket that looks open and says nothing", () => {
    connection().start();
    last().open();
    vi.advanceTimersByTime(10_000);
    expect(actions.at(-1)).toMatchObject({ type: "lost" });
    expect(FakeSocket.made[0]?.readyState).toBe(WebSocket.CLOSED);
    vi.advanceTimersByTime(1000);
    expect(FakeSocket.made).toHaveLength(2);
  });

  it("says when the server does not know its person any more", () => {
    connection().start();
    last().close(1006);
    expect(refusals).toBe(0);
    vi.advanceTimersByTime(1000);
    last().close(4401);
    expect(refusals).toBe(1);
  });

  it("stays away once stopped", () => {
    const live = connection();
    live.start();
    last().open();
    live.stop();
    vi.advanceTimersByTime(60_000);
    expect(FakeSocket.made).toHaveLength(1);
  });
});

function node(name: string, latency: number | null, version = 1): Node {
  return {
    metadata: { name, resource_version: version },
    status: { phase: "ready", emb_ratio: 0.4, telemetry: { at: "2026-11-23T00:00:10Z", latency_ms_p99: latency, landscape: [[1, 2, 3, 4, 5]], stages: {} } },
    allowed_actions: [{ action: "pin", allowed: true, reason: "" }],
  } as unknown as Node;
}

function message(type: string, data: unknown): StreamMessage {
  return { type, seq: "1-0", ts: "", topic: "", data };
}

describe("what messages do to what is shown", () => {
  it("replaces changed nodes, keeps what the stream leaves out, and does not invent new ones", () => {
    const delta = { ...node("b", 50), allowed_actions: undefined } as unknown as Node;
    const merged = mergeNodes([node("a", 10), node("b", 20)], [delta, node("c", 1)]);
    expect(merged.nodes.map((entry) => entry.status.telemetry?.latency_ms_p99)).toEqual([10, 50]);
    expect(merged.unknown).toEqual(["c"]);
    expect(merged.nodes[1]?.status.telemetry?.landscape).toEqual([[1, 2, 3, 4, 5]]);
  });

  it("asks for a node again when its spec changed, and only then", () => {
    const client = new QueryClient();
    client.setQueryData(keys.nodes, [node("a", 10)]);
    client.setQueryData(keys.node("a"), { node: node("a", 10), etag: '"1"' });
    applyMessage(client, message("nodes.delta", [node("a", 12)]));
    expect(client.getQueryState(keys.node("a"))?.isInvalidated).toBe(false);
    expect(client.getQueryData<{ node: Node }>(keys.node("a"))?.node.status.telemetry?.latency_ms_p99).toBe(12);
    applyMessage(client, message("nodes.delta", [node("a", 13, 2)]));
    expect(client.getQueryState(keys.node("a"))?.isInvalidated).toBe(true);
  });

  it("keeps samples in order, once, and no more than it is told", () => {
    const at = (atSeconds: number) => ({ atSeconds, values: {} });
    let tail = appendSample([], at(1), 3);
    tail = appendSample(tail, at(1), 3);
    for (const second of [2, 3, 4]) tail = appendSample(tail, at(second), 3);
    expect(tail.map((sample) => sample.atSeconds)).toEqual([2, 3, 4]);
  });

  it("keeps each event once, newest first", () => {
    const event = (id: number) => ({ id }) as FleetEvent;
    const events = [3, 1, 3, 2].reduce((list, id) => prependEvent(list, event(id)), [] as FleetEvent[]);
    expect(events.map((entry) => entry.id)).toEqual([3, 2, 1]);
  });

  it("shows progress without losing a result", () => {
    const client = new QueryClient();
    const run = { id: "r", status: "running", progress: 0.2, result: null } as unknown as WhatIf;
    client.setQueryData(keys.whatifs, [run]);
    client.setQueryData(keys.whatif("r"), run);
    applyMessage(client, message("job.progress", { ...run, progress: 0.5 }));
    expect(client.getQueryData<WhatIf[]>(keys.whatifs)?.[0]?.progress).toBe(0.5);
    expect(client.getQueryData<WhatIf>(keys.whatif("r"))?.progress).toBe(0.5);
    applyMessage(client, message("job.progress", { ...run, status: "succeeded", progress: 1 }));
    expect(client.getQueryState(keys.whatif("r"))?.isInvalidated).toBe(true);
  });

  it("reads everything again when what was missed is gone", () => {
    const client = new QueryClient();
    client.setQueryData(keys.fleet, {} as Fleet);
    applyMessage(client, message("resync", {}));
    expect(client.getQueryState(keys.fleet)?.isInvalidated).toBe(true);
  });

  it("takes quantiles between neighbours as the server does", () => {
    expect([0.1, 0.5, 0.9].map((share) => quantile([1, 2, 3, 4], share))).toEqual([1.3, 2.5, 3.7].map((value) => expect.closeTo(value, 9)));
    expect(quantile([7], 0.25)).toBe(7);
    expect(quantile([], 0.5)).toBeNull();
  });
});
