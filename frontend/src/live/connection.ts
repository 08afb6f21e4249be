import { retryDelayMs } from "./backoff";
import type { LinkAction } from "./link";

export interface StreamMessage {
  type: string;
  seq: string | null;
  ts: string;
  topic: string;
  data: unknown;
}

interface Environment {
  open: (url: string) => WebSocket;
  nowMs: () => number;
  random: () => number;
}

const BROWSER: Environment = { open: (url) => new WebSocket(url), nowMs: () => Date.now(), random: () => Math.random() };

/** Not signed in, not allowed. */
const REFUSED_CODES = new Set([4401, 4403]);

/** A server that is silent this long while the socket looks open is gone (a tick comes every second). */
const SILENCE_MS = 10_000;

/**
 * One WebSocket that comes back by itself. It knows nothing of what the messages mean:
 * it moves them to `onMessage` and its own state to `onLink`.
 */
export class LiveConnection {
  private socket: WebSocket | null = null;
  private retryTimer: ReturnType<typeof setTimeout> | null = null;
  private silenceTimer: ReturnType<typeof setTimeout> | null = null;
  private lastSeq: string | null = null;
  private attempt = 0;
  private stopped = true;

  constructor(
    private readonly url: (resumeFrom: string | null) => string,
    private readonly onMessage: (message: StreamMessage) => void,
    private readonly onLink: (action: LinkAction) => void,
    /** The server does not know this person any more: retrying alone will not help. */
    private readonly onRefused: () => void,
    private readonly environment: Environment = BROWSER,
  ) {}

  start(): void {
    if (!this.stopped) return;
    this.stopped = false;
    this.dial();
  }

  stop(): void {
    this.stopped = true;
    this.clearTimers();
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    this.onLink({ type: "closed" });
  }

  retryNow(): void {
    if (this.stopped || this.socket?.readyState === WebSocket.OPEN) return;
    this.clearTimers();
    this.dial();
  }

  private dial(): void {
    this.onLink({ type: "dialled" });
    const socket = this.environment.open(this.url(this.lastSeq));
    this.socket = socket;
    socket.onopen = () => {
      this.onLink({ type: "opened" });
      this.armSilence(socket);
    };
    socket.onmessage = (event: MessageEvent<string>) => this.receive(socket, event.data);
    socket.onclose = (event: CloseEvent) => {
      if (REFUSED_CODES.has(event.code)) this.onRefused();
      this.lose(socket);
    };
  }

  private receive(socket: WebSocket, text: string): void {
    const message = JSON.parse(text) as StreamMessage;
    this.attempt = 0;
    const seq = message.seq === null || message.seq === undefined ? null : String(message.seq);
    if (seq !== null && seq !== "") this.lastSeq = seq;
    this.armSilence(socket);
    this.onLink({ type: "message", seq, atMs: this.environment.nowMs() });
    this.onMessage({ ...message, seq });
  }

  private lose(socket: WebSocket): void {
    if (this.stopped || this.socket !== socket) return;
    this.socket = null;
    this.clearTimers();
    const atMs = this.environment.nowMs();
    const delayMs = retryDelayMs(this.attempt, this.environment.random());
    this.attempt += 1;
    this.onLink({ type: "lost", atMs, retryAtMs: atMs + delayMs });
    this.retryTimer = setTimeout(() => this.dial(), delayMs);
  }

  private armSilence(socket: WebSocket): void {
    if (this.silenceTimer !== null) clearTimeout(this.silenceTimer);
    this.silenceTimer = setTimeout(() => {
      // A half-open socket never fires `close` by itself: count it as lost at once, then let it go.
      this.lose(socket);
      socket.close();
    }, SILENCE_MS);
  }

  private clearTimers(): void {
    if (this.retryTimer !== null) clearTimeout(this.retryTimer);
    if (this.silenceTimer !== null) clearTimeout(this.silenceTimer);
    this.retryTimer = null;
    this.silenceTimer = null;
  }
}
