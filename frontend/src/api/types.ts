import type { components } from "./schema";

/** The API's own shapes under short names; nothing is typed twice. */

type Schemas = components["schemas"];

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
export type RoutedNode = Schemas["RoutedNodeDocument"];
export type Pick = Schemas["PickDocument"];
export type ExplainedPick = Schemas["ExplainedPickDocument"];
export type Candidate = Schemas["CandidateDocument"];
export type Policy = Schemas["PolicyDocument"];
export type PolicyChange = Schemas["PolicyChange"];
export type TrainingRun = Schemas["TrainingDocument"];
export type TrainingPoint = Schemas["TrainingPoint"];
export type Schedule = Schemas["ScheduleDocument"];
export type WhatIf = Schemas["WhatIfDocument"];
export type WhatIfRequest = Schemas["WhatIfRequestRequest"];
export type WhatIfRun = Schemas["WhatIfRun"];
export type WhatIfResult = Schemas["WhatIfResult"];

export type Telemetry = Schemas["NodeTelemetry"];
export type Decision = Schemas["Decision"];
export type Node = Schemas["NodeDocument"];

/** A column of a chart. */
export type Series = (number | null)[];
