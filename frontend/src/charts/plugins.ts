import type uPlot from "uplot";
import { clock, day, minutes } from "../format/time";
import type { Line, Reference, Span } from "./series";

type Color = (name: string) => string;
type Translucent = (name: string, opacity: number) => string;

/** Distances between labels that people read at a glance, in seconds. */
const STEPS = [10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400];
const LABEL_WIDTH_PX = 78;

function splits(plot: uPlot, _axis: number, from: number, to: number): number[] {
  const room = Math.max(2, Math.floor(plot.width / LABEL_WIDTH_PX));
  const step = STEPS.find((candidate) => (to - from) / candidate <= room) ?? 86_400;
  const result: number[] = [];
  // A label needs half its width on both sides of its place.
  const margin = ((to - from) * LABEL_WIDTH_PX) / 4 / Math.max(plot.width, 1);
  for (let at = Math.ceil(from / step) * step; at <= to - margin; at += step) result.push(at);
  return result;
}

function values(_: uPlot, at: number[]): string[] {
  const step = at.length > 1 ? (at[1] as number) - (at[0] as number) : 60;
  return at.map((seconds) => {
    const time = new Date(seconds * 1000);
    if (step >= 86_400) return day(time).slice(4);
    return step < 60 ? clock(time) : minutes(time);
  });
}

export const xAxisLabels = { splits, values };

/** Text with an outline in the colour of the surface, so that it stays readable over lines. */
function label(context: CanvasRenderingContext2D, text: string, x: number, y: number, fill: string, surface: string): void {
  context.lineWidth = 3 * devicePixelRatio;
  context.strokeStyle = surface;
  context.lineJoin = "round";
  context.strokeText(text, x, y);
  context.fillStyle = fill;
  context.fillText(text, x, y);
}

/** The first row in which a label has room, given where each row's last label ends; the label then ends that row. */
export function freeRow(ends: number[], from: number, to: number): number {
  const free = ends.findIndex((end) => end <= from);
  const row = free < 0 ? ends.length : free;
  ends[row] = to;
  return row;
}

/** Dashed reference lines (an SLO, a guard rail) and washed spans of time (an override). */
export function marks(
  references: () => Reference[],
  spans: () => Span[],
  color: Color,
  translucent: Translucent,
  font: string,
): uPlot.Plugin {
  function drawSpans(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const ends: number[] = [];
    for (const span of spans()) {
      const left = Math.max(plot.valToPos(span.from, "x", true), bbox.left);
      const right = Math.min(plot.valToPos(span.to, "x", true), bbox.left + bbox.width);
      if (right <= left) continue;
      ctx.fillStyle = translucent(span.color, 0.09);
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.fillStyle = color(span.color);
      ctx.fillRect(left, bbox.top + bbox.height - 2 * devicePixelRatio, right - left, 2 * devicePixelRatio);
      ctx.font = font.replace("11px", `${11 * devicePixelRatio}px`);
      const pad = 5 * devicePixelRatio;
      const edge = bbox.left + bbox.width;
      // A span that has just begun at the right edge has its label on its left.
      const width = ctx.measureText(span.label).width;
      const from = left + pad + width <= edge ? left + pad : left - pad - width;
      const row = freeRow(ends, from, from + width + pad);
      ctx.textAlign = "left";
      label(ctx, span.label, from, bbox.top + (12 + 14 * row) * devicePixelRatio, color(span.color), color("surface"));
    }
  }
  function drawReferences(plot: uPlot): void {
    const { ctx, bbox } = plot;
    for (const reference of references()) {
      const y = plot.valToPos(reference.value, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.beginPath();
      ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.lineWidth = 1.2 * devicePixelRatio;
      ctx.strokeStyle = color(reference.color);
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.setLineDash([]);
      ctx.font = font.replace("11px", `${11 * devicePixelRatio}px`);
      ctx.textAlign = "left";
      label(ctx, reference.label, bbox.left + 6 * devicePixelRatio, y - 5 * devicePixelRatio, color(reference.color), color("surface"));
    }
  }
  function draw(inner: (plot: uPlot) => void): (plot: uPlot) => void {
    return (plot) => {
      plot.ctx.save();
      inner(plot);
      plot.ctx.restore();
    };
  }
  return { hooks: { drawAxes: draw(drawSpans), draw: draw(drawReferences) } };
}

interface TooltipSource {
  lines: Line[];
  valueFormat: (value: number) => string;
}

function row(line: Line, text: string, color: Color): HTMLDivElement {
  const element = document.createElement("div");
  element.className = "tip-row";
  const key = document.createElement("i");
  key.style.background = color(line.color);
  const name = document.createElement("span");
  name.textContent = line.label;
  const value = document.createElement("b");
  value.textContent = text;
  element.append(key, name, value);
  return element;
}

/** Values under the crosshair, in the order in which the lines are drawn. */
export function tooltip(source: () => TooltipSource, color: Color): uPlot.Plugin {
  const box = document.createElement("div");
  box.className = "tip";
  box.hidden = true;
  function follow(plot: uPlot): void {
    const index = plot.cursor.idx;
    const left = plot.cursor.left ?? -1;
    if (index === null || index === undefined || left < 0) {
      box.hidden = true;
      return;
    }
    const { lines, valueFormat } = source();
    const heading = document.createElement("div");
    heading.className = "tip-time";
    heading.textContent = `${clock(new Date((plot.data[0][index] ?? 0) * 1000))} UTC`;
    const rows = lines.flatMap((line, position) => {
      if (line.hidden) return [];
      const value = plot.data[position + 1]?.[index];
      return [row(line, value === null || value === undefined ? "no data" : valueFormat(value), color)];
    });
    box.replaceChildren(heading, ...rows);
    box.hidden = false;
    const flip = left > plot.over.clientWidth / 2;
    box.style.left = flip ? "" : `${left + 12}px`;
    box.style.right = flip ? `${plot.over.clientWidth - left + 12}px` : "";
    box.style.top = "8px";
  }
  return { hooks: { init: (plot) => plot.over.appendChild(box), setCursor: follow, setData: follow } };
}
