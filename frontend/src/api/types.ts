import type { components } from "./schema";

/** The API's own shapes under short names; nothing is typed twice. */

type Schemas = components["schemas"];

/** Values that are null while they are not known: the schema marks them by their description only. */
type NullWhile<Shape, Fields extends keyof Shape> = Omit<Shape, Fields> & { [Field in Fields]: Shape[Field] | null };

export type Me = Schemas["Me"];
export type Fleet = Schemas["FleetDocument"];
export type FleetSeries = Schemas["FleetSeriesDocument"];
export type NodeSeries = Schemas["NodeSeriesDocument"];
export type PoolBytes = Schemas["PoolBytes"];
export type GuardRails = Schemas["GuardRails"];
export type Condition = Schemas["Condition"];
export type AllowedAction = Schemas["AllowedAction"];
export type Cluster = Schemas["ClusterDocument"];
export type Preview = Schemas["PreviewDocument"];
export type FleetEvent = Schemas["Event"];
export type AuditEntry = Schemas["AuditEntry"];
export type Token = Schemas["Token"];
export type NewToken = Schemas["NewToken"];
export type WhatIf = Schemas["WhatIfDocument"];
export type WhatIfRequest = Schemas["WhatIfRequestRequest"];
export type WhatIfRun = Schemas["WhatIfRun"];

export type Telemetry = NullWhile<
  Schemas["NodeTelemetry"],
  "recommended_emb_ratio" | "emb_hit_ratio" | "kv_hit_ratio" | "latency_ms_p50" | "latency_ms_p99" | "slo_ratio" | "override_remaining_ms"
>;
export type Decision = NullWhile<Schemas["Decision"], "shadow_emb_ratio">;

export type NodeStatus = Omit<Schemas["NodeStatusDocument"], "telemetry"> & { telemetry: Telemetry | null };
export type Node = Omit<Schemas["NodeDocument"], "status"> & { status: NodeStatus };

/** A column of a chart. */
export type Series = (number | null)[];

/** One page of a list. */
export interface Page<Row> {
  next: string | null;
  previous: string | null;
  results: Row[];
}
