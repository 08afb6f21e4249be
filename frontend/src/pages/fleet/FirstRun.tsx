import { Button, CopyButton } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { Check } from "lucide-react";
import type { ReactNode } from "react";
import { api, bodyOf } from "../../api/client";
import { useMe } from "../../api/queries";
import { useTitle } from "../../app/useTitle";
import { Failure, Panel } from "../../components/Panel";
import { SplitBar } from "../../components/SplitBar";
import s from "./FirstRun.module.css";

/** No nodes yet: what HELM is for, and the one next step. Goes away by itself with the first node. */
export function FirstRun() {
  useTitle("No nodes yet");
  return (
    <div className={s.page}>
      <div>
        <h1>No nodes yet</h1>
        <p className="quiet">Connect one node to see its memory split, latency and decisions.</p>
        <ol className={s.steps}>
          <Step mark={<Check size={14} aria-label="Done" />} state="done" title="Control plane is running">
            You are signed in and this page hears from it.
          </Step>
          <Step mark="2" state="now" title="Connect a node">
            <ConnectNode />
          </Step>
          <Step mark="3" title="Watch it">
            Split, hit ratios, latency and every decision appear here a second after the node connects.
          </Step>
          <Step mark="4" title="Take it by hand, or let it move">
            Override a ratio for a while, pin it, or release it to its controller, from the node's page.
          </Step>
        </ol>
      </div>
      <Panel title="What you will see" note="an example">
        <div style={{ display: "grid", gap: 10 }}>
          <SplitBar embRatio={0.42} height={16} />
          <p className="small quiet">
            One pool of GPU memory, two caches. <span style={{ color: "var(--emb-ink)" }}>EMB</span> keeps the hot rows of the embedding tables,{" "}
            <span style={{ color: "var(--kv-ink)" }}>KV</span> keeps what attention knows of each user's history.
          </p>
          <p className="small quiet">Too little EMB: look-ups miss. Too little KV: histories are computed again. The best split moves with the traffic.</p>
        </div>
      </Panel>
    </div>
  );
}

interface StepProps {
  mark: ReactNode;
  state?: "done" | "now";
  title: string;
  children: ReactNode;
}

function Step({ mark, state, title, children }: StepProps) {
  return (
    <li className={s.step}>
      <span className={`${s.mark} ${state ? s[state] : ""}`}>{mark}</span>
      <div>
        <b>{title}</b>
        <div className="quiet">{children}</div>
      </div>
    </li>
  );
}

/** The agent's command line, with a fresh one-time token for those who may make one. */
function ConnectNode() {
  const { data: me } = useMe();
  const enrolment = useMutation({ mutationFn: () => bodyOf(api.POST("/api/v1/enrolments/", { body: {} })) });
  if (!me?.permissions.includes("node.enrol")) {
    return <p>Ask an admin for an enrolment token; the agent spends it once and dials in by itself.</p>;
  }
  if (!enrolment.data) {
    return (
      <div style={{ display: "grid", gap: 8, justifyItems: "start" }}>
        <p>The agent spends a one-time token and dials in by itself. On this machine, <code>make up</code> starts demo nodes.</p>
        <Button variant="filled" loading={enrolment.isPending} onClick={() => enrolment.mutate()}>
          Make an enrolment token
        </Button>
        {enrolment.isError && <Failure error={enrolment.error} />}
      </div>
    );
  }
  const link = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/agents/v1/link`;
  const command = [
    `umask 077; echo '${enrolment.data.token}' > enrol-token`,
    "python -m agents.runtime.node_main --fleet fleet.json --name node-0 \\",
    `  --control-url ${link} \\`,
    "  --credential-file node-0.credential --enrol-token-file enrol-token",
  ].join("\n");
  return (
    <>
      <p>Run this on the node's host. The token works once, until {new Date(enrolment.data.expires_at).toUTCString()}.</p>
      <div className={s.code}>
        <pre>{command}</pre>
        <CopyButton value={command}>{({ copied, copy }) => <Button onClick={copy}>{copied ? "Copied" : "Copy"}</Button>}</CopyButton>
      </div>
      <p className="small dim">Waiting for the node. This page changes by itself.</p>
    </>
  );
}
