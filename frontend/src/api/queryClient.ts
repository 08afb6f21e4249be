import { QueryCache, QueryClient } from "@tanstack/react-query";
import { keys } from "./keys";
import { ApiProblem } from "./problem";

/** A refusal will not change by asking again; a network failure may. */
function worthRetrying(failures: number, error: unknown): boolean {
  if (error instanceof ApiProblem && error.status < 500) return false;
  return failures < 2;
}

export function makeQueryClient(): QueryClient {
  const client: QueryClient = new QueryClient({
    // A session that has ended is noticed by whoever asks first; asking who one is then leads to the sign-in form.
    queryCache: new QueryCache({
      onError: (error, query) => {
        const ended = error instanceof ApiProblem && error.status === 401;
        if (ended && query.queryKey[0] !== keys.me[0]) void client.invalidateQueries({ queryKey: keys.me });
      },
    }),
    defaultOptions: {
      queries: { retry: worthRetrying, staleTime: 5000, refetchOnWindowFocus: true },
      // Writes carry an Idempotency-Key, but the person decides whether to try again.
      mutations: { retry: false },
    },
  });
  return client;
}
