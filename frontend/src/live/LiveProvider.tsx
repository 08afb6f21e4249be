import { useQueryClient } from "@tanstack/react-query";
import { createContext, type ReactNode, useContext, useEffect, useMemo, useSyncExternalStore } from "react";
import { keys } from "../api/keys";
import { applyMessage } from "./apply";
import { indicator } from "./link";
import { type LiveState, LiveStore } from "./LiveStore";

const Context = createContext<LiveStore | null>(null);

/** One stream for the whole console, from sign-in to sign-out. */
export function LiveProvider({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const store = useMemo(
    () =>
      new LiveStore(
        (message) => applyMessage(client, message),
        () => void client.invalidateQueries(),
        () => void client.invalidateQueries({ queryKey: keys.me }),
      ),
    [client],
  );
  useEffect(() => {
    store.start();
    return store.stop;
  }, [store]);
  return <Context.Provider value={store}>{children}</Context.Provider>;
}

export function useLiveStore(): LiveStore {
  const store = useContext(Context);
  if (!store) throw new Error("useLiveStore outside of LiveProvider");
  return store;
}

export function useLive(): LiveState {
  const store = useLiveStore();
  return useSyncExternalStore(store.subscribe, store.snapshot);
}

/** Age of the numbers in seconds while the stream is away, else null. */
export function useStaleSeconds(nowMs: number): number | null {
  const { link } = useLive();
  const state = indicator(link, nowMs);
  if (state === "live" || state === "connecting" || link.lastMessageAtMs === null) return null;
  return (nowMs - link.lastMessageAtMs) / 1000;
}
