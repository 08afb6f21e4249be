/** Geometry of the predicted latency curve; pure. */

export interface LandscapePoint {
  ratio: number;
  mean: number;
  p99: number;
  low: number;
  high: number;
}

interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Rows of `[emb_ratio, mean_ms, p99_ms, low_ms, high_ms]` in order of the ratio; rows that are not five numbers are left out. */
export function points(landscape: number[][]): LandscapePoint[] {
  return landscape
    .flatMap((row) => {
      const [ratio, mean, p99, low, high] = row;
      if (row.length !== 5 || row.some((value) => !Number.isFinite(value))) return [];
      return [{ ratio: ratio as number, mean: mean as number, p99: p99 as number, low: low as number, high: high as number }];
    })
    .sort((a, b) => a.ratio - b.ratio);
}

const NICE = [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000];

/** Three to five round values from zero up to `high`. */
export function ticks(high: number): number[] {
  const step = NICE.find((candidate) => high / candidate <= 5) ?? high / 4;
  const result: number[] = [];
  for (let value = 0; value <= high; value += step) result.push(value);
  return result;
}

const LABEL_ROW_PX = 13;
/** From the SLO's line up to where its own label is clear of the one above it. */
const SLO_LABEL_PX = 23;

/**
 * Baselines of the labels of `count` marks, one below the other from the top of the frame. A line of the SLO that high has its own
 * label above it, so they begin below the line.
 */
export function labelRows(count: number, top: number, sloY: number | null): number[] {
  const first = top + 10;
  const below = sloY !== null && sloY < first + LABEL_ROW_PX * (count - 1) + SLO_LABEL_PX ? sloY + LABEL_ROW_PX : first;
  return Array.from({ length: count }, (_, row) => below + LABEL_ROW_PX * row);
}

export function curve(rows: LandscapePoint[], frame: Frame, sloMs: number | null) {
  const fromX = rows[0]?.ratio ?? 0;
  const toX = rows.at(-1)?.ratio ?? 1;
  const highest = Math.max(...rows.flatMap((row) => [row.p99, row.high]), sloMs ?? 0) * 1.15;
  const x = (ratio: number) => frame.left + ((Math.min(Math.max(ratio, fromX), toX) - fromX) / (toX - fromX || 1)) * frame.width;
  const y = (ms: number) => frame.top + frame.height - (Math.min(Math.max(ms, 0), highest) / highest) * frame.height;
  const path = (value: (row: LandscapePoint) => number, among = rows) => among.map((row) => `${x(row.ratio).toFixed(1)} ${y(value(row)).toFixed(1)}`).join("L");
  return {
    x,
    y,
    line: `M${path((row) => row.p99)}`,
    mean: `M${path((row) => row.mean)}`,
    band: `M${path((row) => row.high)}L${path((row) => row.low, [...rows].reverse())}Z`,
    ticksX: [0.2, 0.4, 0.6, 0.8].filter((tick) => tick >= fromX && tick <= toX),
    ticksY: ticks(highest),
  };
}
