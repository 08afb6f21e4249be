import type { WhatIfRun } from "../../api/types";
import { grouped, milliseconds, percent, signed } from "../../format/number";
import { lineOf } from "./lines";
import { bestStatic, figureOf } from "./summary";
import s from "./WhatIfPage.module.css";

/** Figures of the three runs side by side. */
export function SummaryTable({ runs }: { runs: WhatIfRun[] }) {
  const baseline = bestStatic(runs);
  return (
    <div className="scroll-x">
      <table className="data-table">
        <thead>
          <tr>
            <th>Run</th>
            <th className="num">P50 ms</th>
            <th className="num">P99 ms</th>
            <th className="num">Change</th>
            <th className="num">Mean ms</th>
            <th className="num">Under SLO %</th>
            <th className="num">EMB hit %</th>
            <th className="num">KV hit %</th>
            <th className="num">Req/s</th>
            <th className="num">Moves</th>
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <Row key={run.label} run={run} runs={runs} baseline={baseline} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ run, runs, baseline }: { run: WhatIfRun; runs: WhatIfRun[]; baseline: WhatIfRun | undefined }) {
  const line = lineOf(run.label, runs.map((entry) => entry.label));
  const p99 = figureOf(run, "latency_ms_p99");
  return (
    <tr>
      <td>
        <i className={s.dash} style={{ borderColor: `var(--${line.color})`, borderTopStyle: line.dash === "solid" ? "solid" : "dashed" }} />
        {run.label}
      </td>
      <td className="num">{milliseconds(figureOf(run, "latency_ms_p50"))}</td>
      <td className="num">
        <b>{milliseconds(p99)}</b>
      </td>
      <td className="num">
        <Change value={p99} against={baseline === run ? null : baseline ? figureOf(baseline, "latency_ms_p99") : null} isBaseline={baseline === run} />
      </td>
      <td className="num">{milliseconds(figureOf(run, "latency_ms_mean"))}</td>
      <td className="num">{percent(figureOf(run, "slo_ratio"), 2)}</td>
      <td className="num">{percent(figureOf(run, "emb_hit_ratio"))}</td>
      <td className="num">{percent(figureOf(run, "kv_hit_ratio"))}</td>
      <td className="num">{grouped(figureOf(run, "throughput_per_second"))}</td>
      <td className="num">{grouped(figureOf(run, "moves"))}</td>
    </tr>
  );
}

function Change({ value, against, isBaseline }: { value: number | null; against: number | null; isBaseline: boolean }) {
  if (isBaseline) return <span className="dim">baseline</span>;
  if (value === null || against === null) return <span className="dim">n/a</span>;
  const change = value - against;
  if (Math.abs(change) < against * 0.02) return <span className="dim">no clear change</span>;
  return <span className={change < 0 ? s.ok : s.bad}>{signed(change)} ms</span>;
}
