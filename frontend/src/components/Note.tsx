import { Check, Clock, type LucideIcon, OctagonAlert, TriangleAlert } from "lucide-react";
import type { ReactNode } from "react";
import s from "./Note.module.css";

export type NoteTone = "info" | "ok" | "warn" | "crit";

const ICONS: Record<NoteTone, LucideIcon> = { info: Clock, ok: Check, warn: TriangleAlert, crit: OctagonAlert };

interface NoteProps {
  tone?: NoteTone;
  /** Instead of the tone's own. */
  icon?: LucideIcon;
  /** `alert` and `status` are read out when they appear. */
  role?: "alert" | "status";
  children: ReactNode;
}

/** One sentence in a coloured box: what will happen, what happened, or why not. */
export function Note({ tone = "info", icon, role, children }: NoteProps) {
  const Icon = icon ?? ICONS[tone];
  return (
    <div className={s.note} data-tone={tone}>
      <Icon size={14} aria-hidden />
      <span role={role}>{children}</span>
    </div>
  );
}
