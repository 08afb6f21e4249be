import { extent } from "./series";

interface Props {
  values: (number | null)[];
  color?: string;
  height?: number;
  /** Scale shared with neighbours; left out, the line fills its box. */
  range?: [number, number];
  /** A dashed line, for instance an SLO. */
  reference?: number | null;
  area?: boolean;
}

const WIDTH = 100;

/** Path through the known values; a hole starts a new stroke. */
export function sparkPath(values: (number | null)[], low: number, high: number, height: number): string {
  const stepX = values.length > 1 ? WIDTH / (values.length - 1) : 0;
  let pen = "M";
  let path = "";
  values.forEach((value, index) => {
    if (value === null || !Number.isFinite(value)) {
      pen = "M";
      return;
    }
    const clamped = Math.min(Math.max(value, low), high);
    const y = height - 1.5 - ((clamped - low) / (high - low || 1)) * (height - 3);
    path += `${pen}${(index * stepX).toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return path;
}

/** Without the unknown ends: they would only leave room for nothing. */
function known(values: (number | null)[]): (number | null)[] {
  const first = values.findIndex((value) => value !== null);
  return first < 0 ? [] : values.slice(first, values.findLastIndex((value) => value !== null) + 1);
}

/** A small trend without axes; decoration for a number that is written next to it. */
export function Sparkline({ values: all, color = "line-2", height = 22, range, reference, area = true }: Props) {
  const values = known(all);
  const [low, high] = range ?? extent([values]) ?? [0, 1];
  const pad = range ? 0 : Math.max((high - low) * 0.1, Math.abs(high) * 0.01, 1e-6);
  const path = sparkPath(values, low - pad, high + pad, height);
  const y = reference === null || reference === undefined ? null : sparkPath([reference, reference], low - pad, high + pad, height);
  return (
    <svg viewBox={`0 0 ${WIDTH} ${height}`} preserveAspectRatio="none" width="100%" height={height} display="block" aria-hidden>
      {area && path && !path.slice(1).includes("M") && (
        <path d={`${path}L${WIDTH} ${height}L0 ${height}Z`} fill={`var(--${color})`} opacity={0.1} />
      )}
      {y && <path d={y} stroke="var(--slo)" strokeWidth={1} strokeDasharray="2 3" fill="none" vectorEffect="non-scaling-stroke" opacity={0.7} />}
      <path d={path} stroke={`var(--${color})`} strokeWidth={1.4} fill="none" vectorEffect="non-scaling-stroke" strokeLinejoin="round" />
    </svg>
  );
}
