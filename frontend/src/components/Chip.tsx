import {
  ArrowDownToLine,
  Check,
  Clock,
  FlaskConical,
  type LucideIcon,
  OctagonAlert,
  Pin,
  Power,
  RefreshCw,
  SlidersHorizontal,
  TriangleAlert,
  Undo2,
  Zap,
} from "lucide-react";
import type { ReactNode } from "react";
import { duration } from "../format/time";
import s from "./Chip.module.css";

export type Tone = "neutral" | "ok" | "warn" | "crit" | "accent" | "outline";

interface ChipProps {
  tone?: Tone;
  icon?: LucideIcon;
  /** Without a background, as in tiles. */
  plain?: boolean;
  title?: string;
  children: ReactNode;
}

export function Chip({ tone = "neutral", icon: Icon, plain, title, children }: ChipProps) {
  return (
    <span className={`chip ${s.chip} ${tone === "neutral" ? "" : s[tone]} ${plain ? s.plain : ""}`} title={title}>
      {Icon && <Icon size={12} strokeWidth={2.2} aria-hidden />}
      {children}
    </span>
  );
}

export function AgeChip({ seconds }: { seconds: number }) {
  return (
    <Chip icon={Clock} title="Age of these numbers">
      {duration(seconds)}
    </Chip>
  );
}

interface ModeLook {
  word: string;
  icon: LucideIcon;
  tone: Tone;
}

const MODES: Record<string, ModeLook> = {
  auto: { word: "Auto", icon: RefreshCw, tone: "neutral" },
  override: { word: "Override", icon: SlidersHorizontal, tone: "accent" },
  pin: { word: "Pinned", icon: Pin, tone: "accent" },
  recovery: { word: "Recovery", icon: Zap, tone: "warn" },
  demoted: { word: "Demoted", icon: Undo2, tone: "warn" },
  draining: { word: "Draining", icon: ArrowDownToLine, tone: "neutral" },
  offline: { word: "Offline", icon: Power, tone: "crit" },
};

export function modeLook(mode: string): ModeLook {
  return MODES[mode] ?? { word: mode, icon: RefreshCw, tone: "neutral" };
}

/** Who sets the ratio, as icon, word and colour. */
export function ModeBadge({ mode, plain }: { mode: string; plain?: boolean }) {
  const { word, icon, tone } = modeLook(mode);
  return (
    <Chip tone={tone} icon={icon} {...(plain ? { plain } : {})}>
      {word}
    </Chip>
  );
}

/** P99 against the SLO, in words. */
export function SloChip({ latencyMs, sloMs }: { latencyMs: number | null | undefined; sloMs: number | null | undefined }) {
  if (sloMs === null || sloMs === undefined) return null;
  if (latencyMs === null || latencyMs === undefined) return <Chip>SLO {sloMs.toFixed(0)} ms</Chip>;
  const over = latencyMs > sloMs;
  return (
    <Chip tone={over ? "crit" : "ok"} icon={over ? OctagonAlert : Check}>
      {over ? "over" : "under"} SLO {sloMs.toFixed(0)} ms
    </Chip>
  );
}

/** The device only pretends to be a GPU; its numbers must never be mistaken for a GPU's. */
export function EmulatedChip({ plain }: { plain?: boolean }) {
  return (
    <Chip tone="outline" icon={FlaskConical} title="This node runs on a CPU with an emulated HBM pool and an emulated PCIe link" {...(plain ? { plain } : {})}>
      emulated
    </Chip>
  );
}

export function WarnChip({ children }: { children: ReactNode }) {
  return (
    <Chip tone="warn" icon={TriangleAlert}>
      {children}
    </Chip>
  );
}
