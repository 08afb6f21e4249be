import { Button, Tooltip } from "@mantine/core";
import { ChevronLeft, ChevronRight, Pin, SlidersHorizontal, Undo2 } from "lucide-react";
import type { ReactNode } from "react";
import { Link, useNavigate, useParams, useSearchParams } from "react-router";
import { useNode, useNodes } from "../../api/queries";
import { ApiProblem } from "../../api/problem";
import type { Node } from "../../api/types";
import { useRange } from "../../app/ranges";
import { RangePicker } from "../../app/RangePicker";
import { useNow } from "../../app/useNow";
import { useShortcuts } from "../../app/useShortcuts";
import { useTitle } from "../../app/useTitle";
import { Chip, EmulatedChip, ModeBadge, SloChip, WarnChip } from "../../components/Chip";
import { Loaded } from "../../components/Panel";
import { useStaleSeconds } from "../../live/LiveProvider";
import { EventFeed } from "../fleet/EventFeed";
import { asFilter, asSort, matches, modeOf, sorted } from "../fleet/nodeFilter";
import { ConditionsPanel } from "./ConditionsPanel";
import { DecisionsPanel } from "./DecisionsPanel";
import { HistoryPanel, RatioTimeline } from "./NodeCharts";
import { points } from "./landscape";
import { LandscapePanel } from "./LandscapePanel";
import { NodeSummary } from "./NodeSummary";
import { PoolPanel } from "./PoolPanel";
import { StagesPanel } from "./StagesPanel";
import { TakePanel } from "./TakePanel";
import { actionOf } from "./actions";
import { asVerb, type Verb } from "./verbs";
import s from "./NodePage.module.css";

/** Everything about one node, and the form to take it by hand. */
export default function NodePage() {
  const { name = "" } = useParams();
  const query = useNode(name);
  useTitle(name);
  if (query.error instanceof ApiProblem && query.error.status === 404) {
    return (
      <section>
        <h1>There is no node named {name}</h1>
        <p className="quiet">
          <Link to="/">Back to the fleet</Link>
        </p>
      </section>
    );
  }
  return (
    <Loaded query={query} height={720}>
      {({ node, etag }) => <NodeView key={name} node={node} etag={etag} />}
    </Loaded>
  );
}

function useVerbUrl(): [Verb, (verb: Verb) => void] {
  const [search, setSearch] = useSearchParams();
  function set(verb: Verb): void {
    setSearch(
      (before) => {
        const after = new URLSearchParams(before);
        if (verb === "override") after.delete("take");
        else after.set("take", verb);
        return after;
      },
      { replace: true },
    );
    requestAnimationFrame(() => document.getElementById("take")?.scrollIntoView({ block: "nearest" }));
  }
  return [asVerb(search.get("take")), set];
}

/** The neighbours in the order and under the filter with which the grid was left. */
function useNeighbours(name: string): { previous: string | null; next: string | null; position: number; total: number } {
  const { data: nodes } = useNodes();
  const [search] = useSearchParams();
  const shown = sorted(
    (nodes ?? []).filter((node) => matches(node, asFilter(search.get("mode")), search.get("q") ?? "")),
    search.get("sort") === null ? "name" : asSort(search.get("sort")),
  ).map((node) => node.metadata.name);
  const at = shown.indexOf(name);
  return { previous: shown[at - 1] ?? null, next: at < 0 ? (shown[0] ?? null) : (shown[at + 1] ?? null), position: at + 1, total: shown.length };
}

function NodeView({ node, etag }: { node: Node; etag: string }) {
  const [range, setRange] = useRange();
  const [verb, setVerb] = useVerbUrl();
  const nowMs = useNow();
  const staleSeconds = useStaleSeconds(nowMs);
  const { name } = node.metadata;
  const rows = points(node.status.telemetry?.landscape ?? []);
  const predicted = rows.length >= 2;
  // A node that predicts nothing has no curve to show: its neighbours take the room.
  const third = (predicted ? s.span4 : s.span6) ?? "";
  const chart = { name, range, nowSeconds: Math.floor(nowMs / 1000) - (staleSeconds ?? 0), staleSeconds };
  return (
    <div className={s.page}>
      <Header node={node} onVerb={setVerb} />
      <div className="only-small">
        <RangePicker range={range} onChange={setRange} />
      </div>
      <NodeSummary node={node} range={range} staleSeconds={staleSeconds} />
      <div className={s.grid}>
        <RatioTimeline {...chart} node={node} className={s.span8 ?? ""} />
        <PoolPanel node={node} etag={etag} className={s.span4 ?? ""} />
        <TakePanel node={node} etag={etag} verb={verb} onVerb={setVerb} className={third} />
        {predicted && <LandscapePanel node={node} rows={rows} className={third} />}
        <StagesPanel node={node} range={range} nowSeconds={chart.nowSeconds} className={third} />
        <HistoryPanel {...chart} node={node} className={s.span8 ?? ""} />
        <ConditionsPanel node={node} nowMs={nowMs} className={s.span4 ?? ""} />
        <div className={s.span8}>
          <DecisionsPanel name={name} />
        </div>
        <div className={s.span4}>
          <EventFeed target={name} height={240} />
        </div>
      </div>
    </div>
  );
}

function Header({ node, onVerb }: { node: Node; onVerb: (verb: Verb) => void }) {
  const { name, generation } = node.metadata;
  const telemetry = node.status.telemetry;
  const offline = node.status.phase === "offline";
  const neighbours = useNeighbours(name);
  const navigate = useNavigate();
  const [search] = useSearchParams();
  const to = (other: string) => ({ pathname: `/nodes/${encodeURIComponent(other)}`, search: search.toString() });
  useShortcuts({
    j: () => neighbours.next && void navigate(to(neighbours.next)),
    k: () => neighbours.previous && void navigate(to(neighbours.previous)),
    o: () => onVerb("override"),
    p: () => onVerb("pin"),
    r: () => onVerb("release"),
  });
  return (
    <div className={s.header}>
      <span className="dim">
        <Link to={{ pathname: "/", search: search.toString() }}>Nodes</Link> /
      </span>
      <h1>{name}</h1>
      <ModeBadge mode={modeOf(node)} />
      {!offline && <SloChip latencyMs={telemetry?.latency_ms_p99} sloMs={telemetry?.slo_ms} />}
      {telemetry?.emulated && <EmulatedChip />}
      <Chip tone="outline">{node.spec.profile}</Chip>
      {telemetry && <Chip tone="outline">{telemetry.controller}</Chip>}
      <PolicyChip node={node} />
      {node.spec.controller !== "active" && <WarnChip>controller {node.spec.controller}</WarnChip>}
      {node.status.observed_generation < generation && (
        <WarnChip>
          spec generation {generation}, observed {node.status.observed_generation}
        </WarnChip>
      )}
      <span className="row end wrap">
        <span className="row" style={{ gap: 2 }}>
          <Neighbour label="Previous node (k)" to={neighbours.previous ? to(neighbours.previous) : null} icon={<ChevronLeft size={16} />} />
          <span className="small quiet nowrap">
            {neighbours.position} of {neighbours.total}
          </span>
          <Neighbour label="Next node (j)" to={neighbours.next ? to(neighbours.next) : null} icon={<ChevronRight size={16} />} />
        </span>
        <VerbButton node={node} verb="override" icon={<SlidersHorizontal size={14} />} onVerb={onVerb} />
        <VerbButton node={node} verb="pin" icon={<Pin size={14} />} onVerb={onVerb} />
        <VerbButton node={node} verb="release" icon={<Undo2 size={14} />} onVerb={onVerb} />
      </span>
    </div>
  );
}

/** The policy in force, as the node says; while another one was asked for, that too. */
function PolicyChip({ node }: { node: Node }) {
  const inForce = node.status.telemetry?.policy_digest ?? "";
  const wanted = node.spec.policy_digest;
  if (inForce === "" && wanted === "") return null;
  return (
    <>
      {inForce !== "" && (
        <Link to={`/policies/${inForce.slice(0, 12)}`} title={`Policy in force: ${inForce}`}>
          <Chip tone="outline">policy {inForce.slice(0, 8)}</Chip>
        </Link>
      )}
      {wanted !== "" && wanted !== inForce && <WarnChip>policy {wanted.slice(0, 8)} asked for</WarnChip>}
    </>
  );
}

function Neighbour({ label, to, icon }: { label: string; to: { pathname: string; search: string } | null; icon: ReactNode }) {
  const navigate = useNavigate();
  return (
    <Button variant="subtle" color="gray" px={6} aria-label={label} title={label} disabled={to === null} onClick={() => to && void navigate(to)}>
      {icon}
    </Button>
  );
}

const WORDS: Record<Verb, string> = { override: "Override", pin: "Pin", release: "Release" };

/** Opens the form, never acts at once. What is not allowed stays visible and says why. */
function VerbButton({ node, verb, icon, onVerb }: { node: Node; verb: Verb; icon: ReactNode; onVerb: (verb: Verb) => void }) {
  const action = actionOf(node, verb);
  const button = (
    <Button leftSection={icon} data-disabled={!action?.allowed || undefined} aria-disabled={!action?.allowed} onClick={() => action?.allowed && onVerb(verb)}>
      {WORDS[verb]}
    </Button>
  );
  return action?.allowed ? button : <Tooltip label={action?.reason ?? "Not offered by the control plane."}>{button}</Tooltip>;
}
