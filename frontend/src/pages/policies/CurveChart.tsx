import { extent } from "../../charts/series";
import { grouped } from "../../format/number";
import type { Curve } from "./policies";
import s from "./PoliciesPage.module.css";

const WIDTH = 320;
const HEIGHT = 112;
const LEFT = 44;
const BOTTOM = 18;
const TOP = 8;

interface Props {
  title: string;
  curve: Curve;
  /** Steps at the right edge. */
  stepsMax: number;
  digits: number;
}

/** A learning curve over steps; its newest value is written beside it, so that the line is not the only bearer of it. */
export function CurveChart({ title, curve, stepsMax, digits }: Props) {
  const last = curve.values.at(-1);
  const [low, high] = padded(extent([curve.values]) ?? [0, 1]);
  const x = (steps: number) => LEFT + (steps / Math.max(stepsMax, 1)) * (WIDTH - LEFT - 6);
  const y = (value: number) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const path = curve.values.map((value, index) => `${index === 0 ? "M" : "L"}${x(curve.steps[index] as number).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  const now = last === undefined ? "no value yet" : last.toFixed(digits);
  return (
    <figure className={s.curve}>
      <figcaption className="row">
        <span className="small quiet">{title}</span>
        <b className="end">{now}</b>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`${title}: ${now} after ${grouped(curve.steps.at(-1) ?? 0)} steps`}>
        {[low, high].map((value) => (
          <g key={value}>
            <path d={`M${LEFT} ${y(value)}H${WIDTH - 6}`} stroke="var(--grid)" />
            <text x={LEFT - 6} y={y(value) + 4} textAnchor="end">
              {value.toFixed(digits)}
            </text>
          </g>
        ))}
        <text x={LEFT} y={HEIGHT - 4}>
          0
        </text>
        <text x={WIDTH - 6} y={HEIGHT - 4} textAnchor="end">
          {grouped(stepsMax)} steps
        </text>
        <path d={path} fill="none" stroke="var(--line-1)" strokeWidth={1.6} strokeLinejoin="round" />
        {last !== undefined && <circle cx={x(curve.steps.at(-1) as number)} cy={y(last)} r={3} fill="var(--accent)" />}
      </svg>
    </figure>
  );
}

function padded([low, high]: [number, number]): [number, number] {
  const room = Math.max((high - low) * 0.1, Math.abs(high) * 0.02, 1e-4);
  return [low - room, high + room];
}
