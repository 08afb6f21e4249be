import { useComputedColorScheme } from "@mantine/core";
import Plotly from "plotly.js-cartesian-dist-min";
import { useEffect, useRef } from "react";
import { type Figure, useFigure } from "../../api/queries";
import { Loaded } from "../../components/Panel";
import { lineOf } from "./lines";

/** Plotly, loaded only when a result is looked at: it is larger than the rest of the console. */
export default function ResultFigure({ id, height }: { id: string; height: number }) {
  const query = useFigure(id, true);
  return (
    <Loaded query={query} height={height}>
      {(figure) => <Drawing figure={figure} height={height} />}
    </Loaded>
  );
}

function token(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

type Part = Record<string, unknown>;

function styledTraces(figure: Figure): Part[] {
  const labels = [...new Set(figure.data.map((trace) => String(trace.name ?? "")))];
  return figure.data.map((trace) => {
    const look = lineOf(String(trace.name ?? ""), labels);
    return { ...trace, line: { ...(trace.line as Part | undefined), color: token(look.color), dash: look.dash, width: 1.8 } };
  });
}

function styledAxis(axis: Part): Part {
  return {
    ...axis,
    gridcolor: token("grid"),
    linecolor: token("axis"),
    zeroline: false,
    tickfont: { size: 11, color: token("ink-3") },
    title: { ...(axis.title as Part | undefined), font: { size: 11, color: token("ink-3") } },
  };
}

/** The server says what is shown; the console says in which colours, so that both themes are readable. */
function styledLayout(figure: Figure, height: number): Part {
  const axes = Object.entries(figure.layout).filter(([name]) => /^[xy]axis\d*$/.test(name));
  const annotations = (figure.layout.annotations as Part[] | undefined) ?? [];
  const shapes = (figure.layout.shapes as Part[] | undefined) ?? [];
  return {
    ...figure.layout,
    ...Object.fromEntries(axes.map(([name, axis]) => [name, styledAxis(axis as Part)])),
    height,
    autosize: true,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { family: token("font"), size: 12, color: token("ink-2") },
    hovermode: "x unified",
    // Above the first heading, however many lines it takes on a narrow screen.
    legend: { orientation: "h", x: 0, y: 1.07, yanchor: "bottom" },
    margin: { l: 52, r: 16, t: 84, b: 44 },
    hoverlabel: { bgcolor: token("raised"), bordercolor: token("line-strong"), font: { color: token("ink"), size: 11 } },
    annotations: annotations.map((annotation) => ({ ...annotation, font: { size: 12, color: token(annotation.text === "SLO" ? "slo" : "ink-2") } })),
    shapes: shapes.map((shape) => ({ ...shape, line: { color: token("slo"), width: 1.2, dash: "dash" } })),
  };
}

function Drawing({ figure, height }: { figure: Figure; height: number }) {
  const host = useRef<HTMLDivElement>(null);
  const scheme = useComputedColorScheme("dark", { getInitialValueInEffect: false });
  useEffect(() => {
    const element = host.current;
    if (!element) return undefined;
    void Plotly.react(element, styledTraces(figure), styledLayout(figure, height), { displaylogo: false, responsive: true });
    return () => Plotly.purge(element);
  }, [figure, height, scheme]);
  return <div ref={host} style={{ height }} data-testid="whatif-figure" role="img" aria-label="Latency, EMB share and hit ratios of the runs over simulated time" />;
}
