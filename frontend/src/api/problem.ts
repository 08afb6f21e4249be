/** An error as the API tells it (RFC 9457), or as the network does. */

export interface FieldError {
  pointer: string;
  code: string;
  detail: string;
}

interface ProblemBody {
  title?: string;
  detail?: string;
  request_id?: string;
  current_etag?: string;
  errors?: FieldError[];
}

export class ApiProblem extends Error {
  readonly status: number;
  readonly detail: string;
  readonly errors: FieldError[];
  readonly currentEtag: string | null;
  readonly requestId: string | null;

  constructor(status: number, body: ProblemBody) {
    const detail = body.detail ?? body.title ?? `The control plane answered ${status}.`;
    super(detail);
    this.name = "ApiProblem";
    this.status = status;
    this.detail = detail;
    this.errors = body.errors ?? [];
    this.currentEtag = body.current_etag ?? null;
    this.requestId = body.request_id ?? null;
  }

  /** One sentence for a person: what failed, with the status for the one they will ask. */
  get sentence(): string {
    return this.status >= 500 ? `${this.detail} (${this.status})` : this.detail;
  }

  /** What is wrong with one field of a form, or null. `pointer` is `/emb_ratio`, `#/emb_ratio` or `emb_ratio`. */
  about(field: string): string | null {
    const found = this.errors.find((error) => error.pointer.replace(/^#?\/?/, "") === field);
    return found ? found.detail : null;
  }
}

export async function problemOf(response: Response): Promise<ApiProblem> {
  const type = response.headers.get("content-type") ?? "";
  const body: unknown = type.includes("json") ? await response.json().catch(() => ({})) : {};
  return new ApiProblem(response.status, (body ?? {}) as ProblemBody);
}
