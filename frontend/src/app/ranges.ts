import { useCallback } from "react";
import { useSearchParams } from "react-router";

/** Time ranges the API serves, shortest first. */
export const RANGES = ["15m", "1h", "6h", "24h", "7d"] as const;
export type Range = (typeof RANGES)[number];

export const RANGE_SECONDS: Record<Range, number> = { "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800 };
export const DEFAULT_RANGE: Range = "15m";

export function asRange(text: string | null): Range {
  return RANGES.find((range) => range === text) ?? DEFAULT_RANGE;
}

/** One step longer (+1) or shorter (-1), staying inside the list. */
export function nextRange(range: Range, step: 1 | -1): Range {
  const index = Math.min(Math.max(RANGES.indexOf(range) + step, 0), RANGES.length - 1);
  return RANGES[index] ?? range;
}

/** The range lives in the URL, so that a link shows what its sender saw. */
export function useRange(): [Range, (range: Range) => void] {
  const [search, setSearch] = useSearchParams();
  const setRange = useCallback(
    (range: Range) =>
      setSearch(
        (before) => {
          const after = new URLSearchParams(before);
          if (range === DEFAULT_RANGE) after.delete("range");
          else after.set("range", range);
          return after;
        },
        { replace: true },
      ),
    [setSearch],
  );
  return [asRange(search.get("range")), setRange];
}
