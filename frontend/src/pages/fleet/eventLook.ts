import {
  ArrowDownToLine,
  ArrowLeftRight,
  BrainCircuit,
  CircleCheck,
  CircleX,
  FlaskConical,
  Info,
  type LucideIcon,
  OctagonAlert,
  Pin,
  Power,
  Scaling,
  SlidersHorizontal,
  TriangleAlert,
  Undo2,
} from "lucide-react";
import type { FleetEvent } from "../../api/types";

interface Look {
  icon: LucideIcon;
  tone: "neutral" | "ok" | "warn" | "crit" | "accent";
}

const LOOKS: Record<string, Look> = {
  node_enrolled: { icon: CircleCheck, tone: "ok" },
  node_online: { icon: CircleCheck, tone: "ok" },
  node_offline: { icon: Power, tone: "crit" },
  node_draining: { icon: ArrowDownToLine, tone: "neutral" },
  override_requested: { icon: SlidersHorizontal, tone: "accent" },
  override_applied: { icon: SlidersHorizontal, tone: "accent" },
  override_expired: { icon: Undo2, tone: "neutral" },
  pin_requested: { icon: Pin, tone: "accent" },
  pin_applied: { icon: Pin, tone: "accent" },
  release_requested: { icon: Undo2, tone: "accent" },
  released: { icon: Undo2, tone: "neutral" },
  pool_requested: { icon: Scaling, tone: "accent" },
  ratio_moved: { icon: ArrowLeftRight, tone: "neutral" },
  policy_added: { icon: BrainCircuit, tone: "neutral" },
  policy_requested: { icon: BrainCircuit, tone: "accent" },
  policy_switched: { icon: BrainCircuit, tone: "ok" },
  policy_refused: { icon: CircleX, tone: "warn" },
  policy_demoted: { icon: Undo2, tone: "warn" },
  training_started: { icon: BrainCircuit, tone: "neutral" },
  training_finished: { icon: BrainCircuit, tone: "ok" },
  training_left_out: { icon: BrainCircuit, tone: "warn" },
  frame_rejected: { icon: CircleX, tone: "warn" },
  whatif_started: { icon: FlaskConical, tone: "neutral" },
  whatif_finished: { icon: FlaskConical, tone: "ok" },
};

const BY_SEVERITY: Record<string, Look> = {
  critical: { icon: OctagonAlert, tone: "crit" },
  warning: { icon: TriangleAlert, tone: "warn" },
};

/** Icon and tone of an event; what the console does not know yet still gets a line. */
export function eventLook(event: Pick<FleetEvent, "kind" | "severity">): Look {
  return LOOKS[event.kind] ?? BY_SEVERITY[event.severity] ?? { icon: Info, tone: "neutral" };
}

export interface EventLine {
  event: FleetEvent;
  /** How many like it came right before, and are not shown. */
  folded: number;
}

/** A run of the same thing about the same target is one line ("and 5 more"). Newest first in, newest first out. */
export function fold(events: FleetEvent[]): EventLine[] {
  const lines: EventLine[] = [];
  for (const event of events) {
    const last = lines.at(-1);
    if (last && last.event.kind === event.kind && last.event.target === event.target && event.actor === last.event.actor) last.folded += 1;
    else lines.push({ event, folded: 0 });
  }
  return lines;
}
