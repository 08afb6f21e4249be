import { QueryClient } from "@tanstack/react-query";
import { ApiProblem } from "./problem";

/** A refusal will not change by asking again; a network failure may. */
function worthRetrying(failures: number, error: unknown): boolean {
  if (error instanceof ApiProblem && error.status < 500) return false;
  return failures < 2;
}

export function makeQueryClient(): QueryClient {
  return new QueryClient({
    defaultOptions: {
      queries: { retry: worthRetrying, staleTime: 5000, refetchOnWindowFocus: true },
      // Writes carry an Idempotency-Key, but the person decides whether to try again.
      mutations: { retry: false },
    },
  });
}
