import { Button } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Play } from "lucide-react";
import { useState } from "react";
import { Link } from "react-router";
import { api, bodyOf } from "../../api/client";
import { keys } from "../../api/keys";
import type { Policy } from "../../api/types";
import { Chip, WarnChip } from "../../components/Chip";
import { Failure, Panel } from "../../components/Panel";
import { milliseconds } from "../../format/number";
import { changeText, changeWord, OPPONENTS, stateLook, usesOf } from "./policies";
import { UseDialog } from "./UseDialog";
import s from "./PoliciesPage.module.css";

/** One version: lineage, where it runs, how it compares, and what can be done with it. */
export function VersionPanel({ policy, allowed }: { policy: Policy; allowed: boolean }) {
  const [using, setUsing] = useState(false);
  const { word, tone, icon } = stateLook(policy.state);
  return (
    <Panel
      title={policy.label}
      note={policy.digest.slice(0, 12)}
      aside={
        <span className="row end wrap">
          <Chip tone={tone} icon={icon}>
            {word}
          </Chip>
          <JudgeButton policy={policy} allowed={allowed} />
          <Button
            variant="filled"
            leftSection={<Play size={14} />}
            disabled={!allowed}
            title={allowed ? undefined : "Your role can look but not set policies."}
            onClick={() => setUsing(true)}
          >
            Set on nodes
          </Button>
        </span>
      }
    >
      <div className={s.column}>
        <Facts policy={policy} />
        <Evaluation policy={policy} />
      </div>
      {using && <UseDialog policy={policy} onClose={() => setUsing(false)} />}
    </Panel>
  );
}

function Facts({ policy }: { policy: Policy }) {
  const uses = usesOf(policy);
  return (
    <dl className={s.facts}>
      <dt>Comes from</dt>
      <dd>
        {policy.source}
        {policy.parent && (
          <>
            {", from "}
            <Link to={`/policies/${policy.parent.digest.slice(0, 12)}`}>{policy.parent.label}</Link>
          </>
        )}
        {policy.state_reason && <span className="quiet">; {policy.state_reason}</span>}
      </dd>
      <dt>Looks at</dt>
      <dd>the {policy.variant} features</dd>
      <dt>On nodes</dt>
      <dd className="row wrap">
        {uses.length === 0 && <span className="dim">none</span>}
        {uses.map((use) => (
          <span key={use.node} className="row">
            <Link to={`/nodes/${encodeURIComponent(use.node)}`}>{use.node}</Link>
            {use.inForce ? <span className="quiet">{use.controller || "from its start"}</span> : <WarnChip>{use.controller}, on the way</WarnChip>}
          </span>
        ))}
      </dd>
    </dl>
  );
}

function Evaluation({ policy }: { policy: Policy }) {
  const told = policy.evaluation;
  if (!told) return <p className="quiet">Not evaluated: an imported version has not been compared with B5 and B7 here.</p>;
  const opponents = OPPONENTS.filter(({ name }) => name in told.against);
  const methods = ["candidate", ...opponents.map(({ name }) => name)];
  return (
    <>
      <p className="quiet">
        {opponents.map(({ name, label }) => `${label}: P99 ${changeText(told.against[name])}${changeWord(told.against[name]) && `, ${changeWord(told.against[name])}`}`).join(". ")}.{" "}
        <span className="dim">
          {told.seeds.length} {told.seeds.length === 1 ? "seed" : "seeds"} of {told.seconds} s a cell, paired, 95 % intervals.
        </span>
      </p>
      <div className="scroll-x">
        <table className="data-table">
          <thead>
            <tr>
              <th>P99, ms</th>
              {methods.map((method) => (
                <th key={method} className="num">
                  {method === "candidate" ? "this" : (opponents.find(({ name }) => name === method)?.label ?? method)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {Object.entries(told.cells).map(([cell, figures]) => (
              <tr key={cell}>
                <td>{cell}</td>
                {methods.map((method) => (
                  <td key={method} className="num">
                    {milliseconds(p99Of(figures[method]))}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function p99Of(figures: Record<string, unknown> | undefined): number | null {
  const value = figures?.latency_ms_p99;
  return typeof value === "number" ? value : null;
}

/** A rejected version becomes usable, any other is rejected; the reason says that it was done by hand. */
function JudgeButton({ policy, allowed }: { policy: Policy; allowed: boolean }) {
  const client = useQueryClient();
  const state = policy.state === "rejected" ? "usable" : "rejected";
  const judge = useMutation({
    mutationFn: () =>
      bodyOf(api.POST("/api/v1/policies/{digest}/judge/", { params: { path: { digest: policy.digest } }, body: { state, reason: "judged by hand in the console" } })),
    onSettled: () => client.invalidateQueries({ queryKey: keys.policies }),
  });
  return (
    <>
      {judge.isError && <Failure error={judge.error} />}
      <Button disabled={!allowed} loading={judge.isPending} onClick={() => judge.mutate()}>
        {state === "usable" ? "Mark usable" : "Reject"}
      </Button>
    </>
  );
}
