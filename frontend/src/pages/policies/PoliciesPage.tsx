import { Button } from "@mantine/core";
import { Undo2 } from "lucide-react";
import { useState } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { useMe, usePolicies } from "../../api/queries";
import type { Policy } from "../../api/types";
import { useShortcuts } from "../../app/useShortcuts";
import { useTitle } from "../../app/useTitle";
import { Chip } from "../../components/Chip";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { logTime } from "../../format/time";
import { changeText, changeWord, mostInForce, OPPONENTS, stateLook, usesOf, usesText } from "./policies";
import { RollBackDialog } from "./RollBackDialog";
import { SchedulePanel } from "./SchedulePanel";
import { TrainingPanel } from "./TrainingPanel";
import { VersionPanel } from "./VersionPanel";
import s from "./PoliciesPage.module.css";

/** Versions of the learned policy: which there are, which decide where, and how new ones come about. */
export default function PoliciesPage() {
  const { digest } = useParams();
  const policies = usePolicies();
  const { data: me } = useMe();
  const allowed = me?.permissions.includes("policy.manage") ?? false;
  const [rollingBack, setRollingBack] = useState(false);
  const shown = policies.data?.find((policy) => digest && policy.digest.startsWith(digest)) ?? (policies.data && mostInForce(policies.data));
  useTitle("Policies");
  useShortcuts({ b: () => allowed && setRollingBack(true) });
  return (
    <>
      <div className="row wrap" style={{ minHeight: 28 }}>
        <h1>Policies</h1>
        <span className="small quiet">who decides on the split, and how good it is beside its parent and the rules</span>
        <Button
          className="end"
          leftSection={<Undo2 size={14} />}
          disabled={!allowed}
          title={allowed ? "Roll back (b)" : "Your role can look but not roll back."}
          onClick={() => setRollingBack(true)}
        >
          Roll back
        </Button>
      </div>
      <div className={s.layout}>
        <div className={s.column}>
          <Panel title="Registry" note={policies.data ? String(policies.data.length) : undefined} flush>
            <Loaded
              query={policies}
              height={200}
              isEmpty={(rows) => rows.length === 0}
              empty={
                <Empty>
                  <p>No version yet. Tune one here, or bring one with helmctl policy import.</p>
                </Empty>
              }
            >
              {(rows) => <VersionTable rows={rows} shown={shown?.digest} />}
            </Loaded>
          </Panel>
          {shown && <VersionPanel key={shown.digest} policy={shown} allowed={allowed} />}
        </div>
        <div className={s.column}>
          <TrainingPanel allowed={allowed} role={me?.role ?? ""} />
          <SchedulePanel allowed={allowed} />
        </div>
      </div>
      {rollingBack && <RollBackDialog onClose={() => setRollingBack(false)} />}
    </>
  );
}

function VersionTable({ rows, shown }: { rows: Policy[]; shown: string | undefined }) {
  return (
    <div className="scroll-x">
      <table className="data-table">
        <thead>
          <tr>
            <th>Version</th>
            <th>State</th>
            <th>Parent</th>
            {OPPONENTS.map(({ name, label }) => (
              <th key={name} className="num">
                P99 vs {label}
              </th>
            ))}
            <th>Nodes</th>
            <th>Created</th>
            <th>By</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((policy) => (
            <Row key={policy.digest} policy={policy} current={policy.digest === shown} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ policy, current }: { policy: Policy; current: boolean }) {
  const navigate = useNavigate();
  const { word, tone, icon } = stateLook(policy.state);
  const path = `/policies/${policy.digest.slice(0, 12)}`;
  return (
    <tr aria-selected={current} onClick={() => void navigate(path)} style={{ cursor: "pointer" }}>
      <td>
        <Link to={path} title={policy.digest}>
          {policy.label}
        </Link>
      </td>
      <td>
        <Chip tone={tone} icon={icon} title={policy.state_reason}>
          {word}
        </Chip>
      </td>
      <td>{policy.parent?.label ?? <span className="dim">none</span>}</td>
      {OPPONENTS.map(({ name }) => {
        const change = policy.evaluation?.against[name];
        const verdict = changeWord(change);
        return (
          <td key={name} className={`num ${verdict === "better" ? s.better : verdict === "worse" ? s.worse : ""}`} title={verdict}>
            {changeText(change)}
          </td>
        );
      })}
      <td>
        <Uses policy={policy} />
      </td>
      <td>{logTime(new Date(policy.created_at), new Date())}</td>
      <td>{policy.created_by}</td>
    </tr>
  );
}

function Uses({ policy }: { policy: Policy }) {
  const uses = usesOf(policy);
  if (uses.length === 0) return <span className="dim">none</span>;
  return <span title={uses.map((use) => use.node).join(", ")}>{usesText(policy)}</span>;
}
