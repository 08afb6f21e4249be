import createClient, { type Middleware } from "openapi-fetch";
import { problemOf } from "./problem";
import type { paths } from "./schema";

const CSRF_COOKIE = "helm_csrf";

function cookie(name: string): string | null {
  const found = document.cookie.split("; ").find((part) => part.startsWith(`${name}=`));
  return found ? decodeURIComponent(found.slice(name.length + 1)) : null;
}

/** Writes prove that they come from this page, and are safe to send twice. */
const guard: Middleware = {
  onRequest({ request }) {
    if (request.method === "GET") return request;
    const token = cookie(CSRF_COOKIE);
    if (token) request.headers.set("X-CSRFToken", token);
    if (request.method === "POST" && !request.headers.has("Idempotency-Key")) {
      request.headers.set("Idempotency-Key", randomId());
    }
    return request;
  },
  async onResponse({ response }) {
    if (!response.ok) throw await problemOf(response);
    return response;
  },
};

/** 128 random bits; `crypto.randomUUID` is missing on plain http from another machine. */
export function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The API as its own schema describes it; refusals are thrown as `ApiProblem`. */
export const api = createClient<paths>({ baseUrl: location.origin, credentials: "same-origin" });
api.use(guard);

/** The body of an answer that has one. */
export async function bodyOf<Body>(call: Promise<{ data?: Body }>): Promise<Body> {
  const { data } = await call;
  if (data === undefined) throw new Error("The control plane answered without a body.");
  return data;
}
