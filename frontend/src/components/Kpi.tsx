import { Skeleton } from "@mantine/core";
import type { CSSProperties, ReactNode } from "react";
import { Sparkline } from "../charts/Sparkline";
import { NOT_KNOWN } from "../format/number";
import { AgeChip } from "./Chip";
import s from "./Kpi.module.css";

export interface KpiProps {
  label: string;
  value: string;
  unit?: string;
  swatch?: "emb" | "kv";
  context?: ReactNode;
  trend?: (number | null)[];
  reference?: number | null;
  critical?: boolean;
  loading?: boolean;
  staleSeconds?: number | null;
}

export function Kpi({ label, value, unit, swatch, context, trend, reference, critical, loading, staleSeconds }: KpiProps) {
  return (
    <div className={s.kpi}>
      <span className={s.label}>
        {swatch && <i className={s.swatch} style={{ background: `var(--${swatch})` }} />}
        {label}
      </span>
      <span className={`${s.value} ${critical ? s.crit : ""}`}>
        {loading ? <Skeleton height={20} width={72} my={4} /> : value}
        {unit && !loading && value !== NOT_KNOWN && <small>{unit}</small>}
        {staleSeconds !== null && staleSeconds !== undefined && <AgeChip seconds={staleSeconds} />}
      </span>
      {context !== undefined && <span className={s.context}>{context}</span>}
      {trend && <Sparkline values={trend} color={swatch ?? "line-2"} reference={reference ?? null} />}
    </div>
  );
}

export function KpiStrip({ columns, compact, children }: { columns: number; compact?: boolean; children: ReactNode }) {
  return (
    <div className={`${s.strip} ${compact ? s.compact : ""}`} style={{ "--columns": columns } as CSSProperties}>
      {children}
    </div>
  );
}
