import { Button, Skeleton } from "@mantine/core";
import { CircleSlash, Lock, TriangleAlert } from "lucide-react";
import type { CSSProperties, ReactNode } from "react";
import { ApiProblem } from "../api/problem";
import { AgeChip } from "./Chip";
import s from "./Panel.module.css";

interface PanelProps {
  title: string;
  note?: ReactNode;
  aside?: ReactNode;
  /** Age of old values in seconds; shown as a chip beside the title. */
  staleSeconds?: number | null;
  flush?: boolean;
  className?: string;
  style?: CSSProperties;
  children: ReactNode;
}

/** A card with a heading; every figure and table of the console sits in one. */
export function Panel({ title, note, aside, staleSeconds, flush, className, style, children }: PanelProps) {
  return (
    <section className={`${s.panel} panel ${className ?? ""}`} style={style} aria-label={title}>
      <div className={s.head}>
        <h2>{title}</h2>
        {note && <span className={s.note}>{note}</span>}
        {staleSeconds !== null && staleSeconds !== undefined && <AgeChip seconds={staleSeconds} />}
        {aside}
      </div>
      <div className={`${s.body} ${flush ? s.flush : ""}`}>{children}</div>
    </section>
  );
}

interface QueryLike<T> {
  data: T | undefined;
  error: unknown;
  isPending: boolean;
  refetch: () => unknown;
}

interface LoadedProps<T> {
  query: QueryLike<T>;
  /** Height in px of the content, kept in every state so that nothing jumps. */
  height: number;
  isEmpty?: (data: T) => boolean;
  empty?: ReactNode;
  children: (data: T) => ReactNode;
}

/** Loading, forbidden, failed, empty or there: one box of one height. */
export function Loaded<T>({ query, height, isEmpty, empty, children }: LoadedProps<T>) {
  const box = { minHeight: height };
  if (query.data !== undefined) {
    if (isEmpty?.(query.data)) return <div style={{ ...box, height }}>{empty}</div>;
    return <div style={box}>{children(query.data)}</div>;
  }
  if (query.isPending) return <Skeleton height={height} radius="sm" aria-label="Loading" />;
  return (
    <div style={{ ...box, height }}>
      <Failure error={query.error} onRetry={() => void query.refetch()} />
    </div>
  );
}

export function Failure({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const problem = error instanceof ApiProblem ? error : null;
  if (problem?.status === 403) {
    return (
      <Notice icon={<Lock size={18} aria-hidden />}>
        <p>{problem.detail}</p>
      </Notice>
    );
  }
  return (
    <Notice icon={<TriangleAlert size={18} color="var(--crit)" aria-hidden />}>
      <p role="alert">{problem ? problem.sentence : "The control plane cannot be reached."}</p>
      {onRetry && <Button onClick={onRetry}>Try again</Button>}
    </Notice>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return <Notice icon={<CircleSlash size={18} color="var(--ink-3)" aria-hidden />}>{children}</Notice>;
}

function Notice({ icon, children }: { icon: ReactNode; children: ReactNode }) {
  return (
    <div className={s.state}>
      {icon}
      {children}
    </div>
  );
}

interface LegendEntry {
  label: string;
  color: string;
  mark?: "line" | "dash" | "area";
  opacity?: number;
}

export function Legend({ entries }: { entries: LegendEntry[] }) {
  return (
    <div className={s.legend}>
      {entries.map(({ label, color, mark = "line", opacity = 1 }) => (
        <span key={label}>
          {mark === "area" ? (
            <i className={s.swatch} style={{ background: `var(--${color})`, opacity }} />
          ) : (
            <i className={s.stroke} style={{ borderColor: `var(--${color})`, borderTopStyle: mark === "dash" ? "dashed" : "solid" }} />
          )}
          {label}
        </span>
      ))}
    </div>
  );
}
