import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useMutation, useQuery } from "@tanstack/react-query";
import { api, bodyOf } from "../../api/client";
import type { Node, Preview } from "../../api/types";
import type { SizeDraft } from "./resize";
import { DEBOUNCE_MS, DRY_REASON, useReadAgain } from "./useTake";

/** What another size would hold, asked of the server while the form is filled in. */
export function useSizePreview(name: string, poolBytes: number | null, enabled: boolean) {
  const [settled] = useDebouncedValue(poolBytes, DEBOUNCE_MS);
  return useQuery({
    queryKey: ["preview", name, "resize", settled],
    queryFn: async () => {
      const body = { pool_bytes: settled, reason: DRY_REASON };
      return (await bodyOf(api.POST("/api/v1/nodes/{name}/resize/", { params: { path: { name }, query: { dry_run: true } }, body }))) as Preview;
    },
    enabled,
    placeholderData: keepPreviousData,
    staleTime: 2000,
    retry: false,
  });
}

/** Sends the size with the version that was on the screen; `onDone` once it is stored. */
export function useResize(name: string, etag: string, onDone: () => void) {
  return useMutation({
    mutationFn: async ({ poolBytes, reason }: SizeDraft) => {
      const body = { pool_bytes: poolBytes, reason: reason.trim() };
      return (await bodyOf(api.POST("/api/v1/nodes/{name}/resize/", { params: { path: { name }, header: { "If-Match": etag } }, body }))) as Node;
    },
    onSuccess: onDone,
    onSettled: useReadAgain(name),
  });
}
