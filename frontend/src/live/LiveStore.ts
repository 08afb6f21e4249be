import { LiveConnection, type StreamMessage } from "./connection";
import { type Link, type LinkAction, NO_LINK, reduceLink } from "./link";

export interface LiveState {
  link: Link;
  paused: boolean;
  /** Read the API every 10 s while the stream is away; offered, never chosen for the reader. */
  polling: boolean;
}

/** Keeps one connection and tells React about it; messages go to `handle`. */
export class LiveStore {
  private state: LiveState = { link: NO_LINK, paused: false, polling: false };
  private readonly listeners = new Set<() => void>();
  private readonly connection: LiveConnection;

  constructor(
    private readonly handle: (message: StreamMessage) => void,
    private readonly onResume: () => void,
    onRefused: () => void,
  ) {
    this.connection = new LiveConnection(streamUrl, (message) => this.receive(message), (action) => this.move(action), onRefused);
  }

  start = (): void => this.connection.start();
  stop = (): void => this.connection.stop();
  retryNow = (): void => this.connection.retryNow();
  announce = (): void => this.move({ type: "announced" });

  togglePause = (): void => {
    this.set({ ...this.state, paused: !this.state.paused });
    if (!this.state.paused) this.onResume();
  };

  setPolling = (polling: boolean): void => this.set({ ...this.state, polling });

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  snapshot = (): LiveState => this.state;

  private receive(message: StreamMessage): void {
    if (this.state.polling) this.setPolling(false);
    if (!this.state.paused) this.handle(message);
  }

  private move(action: LinkAction): void {
    this.set({ ...this.state, link: reduceLink(this.state.link, action) });
  }

  private set(state: LiveState): void {
    this.state = state;
    for (const listener of this.listeners) listener();
  }
}

function streamUrl(resumeFrom: string | null): string {
  const url = new URL("/api/v1/stream", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("topics", "fleet,nodes,events,jobs");
  if (resumeFrom !== null) url.searchParams.set("resume_from", resumeFrom);
  return url.toString();
}
