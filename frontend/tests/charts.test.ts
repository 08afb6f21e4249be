import { describe, expect, it } from "vitest";
import { columnsOf, withTail } from "../src/charts/columns";
import { freeRow } from "../src/charts/plugins";
import { latencyRange, ratioRange } from "../src/charts/scales";
import { extent, withGaps } from "../src/charts/series";
import { sparkPath } from "../src/charts/Sparkline";
import { heldSpans } from "../src/pages/node/NodeCharts";
import { stacked } from "../src/pages/node/StagesPanel";
import { curve, points, ticks } from "../src/pages/node/landscape";

describe("what a chart is given", () => {
  it("leaves a hole where nothing was measured", () => {
    const line = { label: "P99", values: [1, 2, 3, 4], color: "ink" };
    const drawn = withGaps([10, 11, 12, 60], [line]);
    expect(drawn.at).toEqual([10, 11, 12, 36, 60]);
    expect(drawn.lines[0]?.values).toEqual([1, 2, 3, null, 4]);
    expect(withGaps([10, 11, 12, 13], [line]).at).toEqual([10, 11, 12, 13]);
  });

  it("puts live samples behind the history, once, and cuts what left the window", () => {
    const document = { at: ["1970-01-01T00:00:10Z", "1970-01-01T00:00:15Z"], p99: [1, 2], mode: ["auto", "pin"], slo_ms: 50 };
    const history = columnsOf(document);
    expect(history.columns).toEqual({ p99: [1, 2], mode: [null, null] });
    const sample = (atSeconds: number, p99: number) => ({ atSeconds, values: { p99 } });
    const merged = withTail(history, [sample(14, 9), sample(15, 9), sample(16, 3)], 12);
    expect(merged.at).toEqual([15, 16]);
    expect(merged.columns.p99).toEqual([2, 3]);
  });

  it("always shows the SLO, and at least ten points of a share", () => {
    expect(latencyRange(60)(0, 20)).toEqual([0, expect.closeTo(69, 6)]);
    const [low, high] = ratioRange(0.4, 0.4);
    expect(high - low).toBeCloseTo(0.1);
    expect(ratioRange(0, 0.02)[0]).toBe(0);
    expect(extent([[null, 3], [NaN, -1]])).toEqual([-1, 3]);
    expect(extent([[null]])).toBeNull();
  });

  it("lifts the pen over unknown values", () => {
    expect(sparkPath([0, null, 1], 0, 1, 10)).toBe("M0.0 8.5M100.0 1.5");
  });

  it("marks the time in which a person or recovery held the node", () => {
    const spans = heldSpans([1, 2, 3, 4, 5], ["auto", "override", "override", "recovery", "auto"]);
    expect(spans).toEqual([
      { from: 2, to: 4, color: "accent", label: "override" },
      { from: 4, to: 5, color: "warn", label: "recovery" },
    ]);
  });

  it("stacks stages so that the upper edge is the whole request", () => {
    expect(stacked([[1, null], [2, 2], [4, 4]])).toEqual([[1, null], [3, 2], [7, 6]]);
  });

  it("draws the landscape inside its frame and ignores rows that are none", () => {
    const rows = points([[0.8, 1, 90, 80, 100], [0.2, 1, 60, 50, 70], [0.5, NaN, 1, 1, 1], [1, 2]]);
    expect(rows.map((row) => row.ratio)).toEqual([0.2, 0.8]);
    const drawn = curve(rows, { left: 40, top: 10, width: 100, height: 50 }, 200);
    expect(drawn.x(0.2)).toBe(40);
    expect(drawn.x(0.9)).toBe(140);
    expect(drawn.y(0)).toBe(60);
    expect(drawn.y(200)).toBeGreaterThanOrEqual(10);
    expect(ticks(80)).toEqual([0, 20, 40, 60, 80]);
  });
});

describe("labels of spans", () => {
  it("stand in one row while they have room, and one below the other where they would overlap", () => {
    const ends: number[] = [];
    const rows = [[0, 50], [50, 90], [70, 120], [80, 130], [130, 180]].map(([from, to]) => freeRow(ends, from as number, to as number));
    expect(rows).toEqual([0, 0, 1, 2, 0]);
  });
});
