import { useComputedColorScheme } from "@mantine/core";
import { useReducedMotion } from "@mantine/hooks";
import { useEffect, useMemo, useRef, type KeyboardEvent } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { clock } from "../format/time";
import { marks, tooltip, xAxisLabels } from "./plugins";
import { type Band, type Line, type Reference, type Span, withGaps } from "./series";
import s from "./TimeChart.module.css";

interface Props {
  at: number[];
  lines: Line[];
  bands?: Band[];
  references?: Reference[];
  spans?: Span[];
  /** Text of a value on the axis and in the tooltip. */
  axisFormat: (value: number) => string;
  valueFormat: (value: number) => string;
  /** Lowest and highest value on the axis; a side left out follows the data. */
  range: (low: number, high: number) => [number, number];
  /** Time shown, unix seconds. */
  window: [number, number];
  /** Distances between axis labels that read well in this unit. */
  increments?: number[];
  height: number;
  /** One sentence that says what the chart shows now. */
  description: string;
  /** Charts with one key share their crosshair. */
  syncKey?: string;
}

/** With reduced motion a live chart is redrawn this seldom. */
const CALM_REDRAW_MS = 5000;

function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function translucent(name: string, opacity: number): string {
  return `${color(name)}${Math.round(opacity * 255).toString(16).padStart(2, "0")}`;
}

/** What makes a chart a different chart (rather than the same one with newer samples). */
function shapeOf(props: Props): string {
  const lines = props.lines.map(({ values: _, ...rest }) => rest);
  return JSON.stringify([lines, props.bands, props.references, props.height, props.syncKey]);
}

function seriesOptions(line: Line): uPlot.Series {
  const stepped = line.step ? uPlot.paths.stepped?.({ align: 1 }) : undefined;
  return {
    label: line.label,
    stroke: line.hidden ? "transparent" : color(line.color),
    width: line.hidden ? 0 : (line.width ?? 1.5),
    points: { show: false },
    ...(line.dash ? { dash: line.dash } : {}),
    ...(line.fill ? { fill: translucent(line.color, line.fill) } : {}),
    ...(stepped ? { paths: stepped } : {}),
  };
}

function bandOptions(band: Band, lines: Line[]): uPlot.Band {
  const index = (label: string): number => lines.findIndex((line) => line.label === label) + 1;
  return { series: [index(band.upper), index(band.lower)], fill: translucent(band.color, band.opacity) };
}

/** A live line chart on canvas: shares its look, crosshair and gap rule with every other chart. */
export function TimeChart(props: Props) {
  const host = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const latest = useRef(props);
  latest.current = props;
  const scheme = useComputedColorScheme("dark", { getInitialValueInEffect: false });
  const calm = useReducedMotion();
  const shape = shapeOf(props);
  const drawn = useMemo(() => withGaps(props.at, props.lines), [props.at, props.lines]);
  const data = useMemo(
    () => [drawn.at, ...drawn.lines.map((line) => line.values)] as uPlot.AlignedData,
    [drawn],
  );

  useEffect(() => {
    const element = host.current;
    if (!element) return undefined;
    const { lines, bands = [], height, axisFormat, increments, syncKey } = latest.current;
    const font = `500 11px ${color("font") || "sans-serif"}`;
    const axis = { stroke: color("ink-3"), font, ticks: { show: false } };
    const options: uPlot.Options = {
      width: Math.max(element.clientWidth, 120),
      height,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: {
        drag: { setScale: false, x: false, y: false },
        y: false,
        points: { show: false },
        ...(syncKey ? { sync: { key: syncKey, setSeries: false } } : {}),
      },
      scales: {
        x: { time: false, range: () => latest.current.window },
        y: { range: (_, low, high) => latest.current.range(low ?? 0, high ?? 1) },
      },
      axes: [
        { ...axis, size: 24, space: 72, grid: { show: false }, splits: xAxisLabels.splits, values: xAxisLabels.values },
        {
          ...axis,
          size: 44,
          space: 34,
          gap: 6,
          ...(increments ? { incrs: increments } : {}),
          grid: { stroke: color("grid"), width: 1 },
          values: (_, values) => values.map((value) => axisFormat(value)),
        },
      ],
      series: [{}, ...lines.map(seriesOptions)],
      bands: bands.map((band) => bandOptions(band, lines)),
      plugins: [
        marks(() => latest.current.references ?? [], () => latest.current.spans ?? [], color, translucent, font),
        tooltip(() => latest.current, color),
      ],
    };
    const plot = new uPlot(options, [[], ...lines.map(() => [])] as uPlot.AlignedData, element);
    chart.current = plot;
    const observer = new ResizeObserver(() => plot.setSize({ width: Math.max(element.clientWidth, 120), height }));
    observer.observe(element);
    void document.fonts.ready.then(() => chart.current === plot && plot.redraw(false));
    return () => {
      observer.disconnect();
      plot.destroy();
      chart.current = null;
    };
  }, [shape, scheme]);

  useEffect(() => {
    if (!calm) {
      chart.current?.setData(data);
      return undefined;
    }
    const wait = setTimeout(() => chart.current?.setData(data), CALM_REDRAW_MS);
    return () => clearTimeout(wait);
  }, [data, shape, scheme, calm, props.window[0], props.window[1]]);

  function moveCrosshair(event: KeyboardEvent): void {
    const plot = chart.current;
    if (!plot || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const step = (event.key === "ArrowLeft" ? -1 : 1) * Math.max(1, plot.over.clientWidth / 60);
    const from = (plot.cursor.left ?? -1) < 0 ? plot.over.clientWidth : (plot.cursor.left as number);
    plot.setCursor({ left: Math.min(Math.max(from + step, 0), plot.over.clientWidth - 1), top: 20 });
  }

  return (
    <div
      ref={host}
      className={s.chart}
      style={{ height: props.height }}
      role="img"
      aria-label={props.description}
      tabIndex={0}
      onKeyDown={moveCrosshair}
      onBlur={() => chart.current?.setCursor({ left: -10, top: -10 })}
    />
  );
}

/** The time of a tooltip. */
export function tooltipTime(seconds: number): string {
  return `${clock(new Date(seconds * 1000))} UTC`;
}
