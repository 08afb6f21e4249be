import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import type { Node, Preview } from "../../api/types";
import type { Draft } from "./take";

/** A person drags or types; the server is asked when the hand rests. */
export const DEBOUNCE_MS = 250;
/** A dry run needs a reason as the real thing does; this one is never stored. */
export const DRY_REASON = "preview";

function send(name: string, draft: Draft, dryRun: boolean, etag: string | null) {
  const params = {
    path: { name },
    query: dryRun ? { dry_run: true } : {},
    header: etag === null ? {} : { "If-Match": etag },
  };
  const reason = dryRun ? DRY_REASON : draft.reason.trim();
  const emb_ratio = Number(((draft.embPercent ?? 0) / 100).toFixed(4));
  if (draft.verb === "release") return bodyOf(api.POST("/api/v1/nodes/{name}/release/", { params, body: { reason } }));
  if (draft.verb === "pin") return bodyOf(api.POST("/api/v1/nodes/{name}/pin/", { params, body: { reason, emb_ratio } }));
  return bodyOf(api.POST("/api/v1/nodes/{name}/override/", { params, body: { reason, emb_ratio, ttl_seconds: draft.ttlSeconds ?? 0 } }));
}

/** What the wish would do, asked of the server while the form is filled in. */
export function usePreview(name: string, draft: Draft, enabled: boolean) {
  const [settled] = useDebouncedValue(draft, DEBOUNCE_MS);
  return useQuery({
    queryKey: ["preview", name, settled.verb, settled.embPercent, settled.ttlSeconds],
    queryFn: async () => (await send(name, settled, true, null)) as Preview,
    enabled,
    placeholderData: keepPreviousData,
    staleTime: 2000,
    retry: false,
  });
}

/** After a write, refused or not, the node is read again: its version and what one may do may have changed. */
export function useReadAgain(name: string): () => Promise<void> {
  const client = useQueryClient();
  return async () => {
    await client.invalidateQueries({ queryKey: keys.node(name) });
    void client.invalidateQueries({ queryKey: keys.nodes });
  };
}

/** Sends the wish with the version that was on the screen; the answer is the changed node. */
export function useTake(name: string, etag: string) {
  return useMutation({
    mutationFn: async (draft: Draft) => ({ node: (await send(name, draft, false, etag)) as Node, draft }),
    onSettled: useReadAgain(name),
  });
}
