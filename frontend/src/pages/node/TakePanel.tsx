import { Button, NumberInput, Textarea, TextInput } from "@mantine/core";
import { Check } from "lucide-react";
import { type CSSProperties, type FormEvent, type KeyboardEvent, useId, useState } from "react";
import { useSearchParams } from "react-router";
import { useCluster } from "../../api/queries";
import { ApiProblem } from "../../api/problem";
import type { Node, Preview } from "../../api/types";
import { Note } from "../../components/Note";
import { Numbers } from "../../components/Numbers";
import { Panel } from "../../components/Panel";
import { Segments } from "../../components/Segments";
import { bytes, milliseconds, percent, signed } from "../../format/number";
import { duration, minutes, parseTtlSeconds } from "../../format/time";
import { actionOf, refusalText } from "./actions";
import { ReviewDialog } from "./ReviewDialog";
import { deservesReview, type Draft, expectedChangeMs, faults, heldMore, isSlower, type Limits, STEP_PERCENT, TTL_CHOICES } from "./take";
import { usePreview, useTake } from "./useTake";
import type { Verb } from "./verbs";
import s from "./TakePanel.module.css";

interface Props {
  node: Node;
  etag: string;
  verb: Verb;
  onVerb: (verb: Verb) => void;
  className: string;
}

const WORDS: Record<Verb, string> = { override: "Override", pin: "Pin", release: "Release" };

/** Limits to show before the cluster's own have been read; the server has the last word anyway. */
const TTL_SECONDS_MIN = 5;
const TTL_SECONDS_MAX = 12 * 3600;

function startPercent(node: Node, search: URLSearchParams): number | null {
  const asked = Number.parseFloat(search.get("ratio") ?? "");
  const ratio = Number.isFinite(asked) ? asked : (node.spec.emb_ratio ?? node.status.emb_ratio);
  return ratio === null ? null : Math.round(ratio * 1000) / 10;
}

/** Take a node by hand: a ratio with an end, a ratio until released, or back to the controller. */
export function TakePanel({ node, etag, verb, onVerb, className }: Props) {
  const { name } = node.metadata;
  const [search] = useSearchParams();
  const { data: cluster } = useCluster(node.metadata.cluster);
  const [embPercent, setEmbPercent] = useState(() => startPercent(node, search));
  const [ttlText, setTtlText] = useState("30m");
  const [reason, setReason] = useState("");
  const [touched, setTouched] = useState(false);
  const [reviewing, setReviewing] = useState(false);
  const limits: Limits = {
    rails: node.spec.guard_rails,
    ttlSecondsMin: cluster?.override_ttl_seconds_min ?? TTL_SECONDS_MIN,
    ttlSecondsMax: cluster?.override_ttl_seconds_max ?? TTL_SECONDS_MAX,
  };
  const draft: Draft = { verb, embPercent, ttlSeconds: parseTtlSeconds(ttlText), reason };
  const found = faults(draft, limits);
  const action = actionOf(node, verb);
  const allowed = action?.allowed ?? false;
  const priced = allowed && !found.some((fault) => fault.field !== "reason");
  const preview = usePreview(name, draft, priced);
  const take = useTake(name, etag);

  function submit(): void {
    setReviewing(false);
    take.mutate(draft, { onSuccess: () => { setReason(""); setTouched(false); } });
  }
  function ask(event: FormEvent): void {
    event.preventDefault();
    setTouched(true);
    if (found.length > 0 || !allowed) return;
    if (verb !== "release" && deservesReview(preview.data)) setReviewing(true);
    else submit();
  }
  function faultOf(field: string): string | null {
    const fromServer = take.error instanceof ApiProblem ? take.error.about(field) : null;
    return fromServer ?? (touched ? (found.find((fault) => fault.field === field)?.text ?? null) : null);
  }

  return (
    <Panel
      title="Take by hand"
      className={className}
      aside={
        <span className="end">
          <Segments
            label="What to do"
            value={verb}
            onChange={(next) => { take.reset(); onVerb(next); }}
            options={(Object.keys(WORDS) as Verb[]).map((value) => ({ value, label: WORDS[value] }))}
          />
        </span>
      }
    >
      <form id="take" className={s.form} onSubmit={ask} noValidate>
        <Standing node={node} />
        {verb !== "release" && <RatioField embPercent={embPercent} onChange={setEmbPercent} node={node} disabled={!allowed} fault={faultOf("emb_ratio")} />}
        {verb !== "release" && <PriceTag preview={priced ? preview.data : undefined} />}
        <Advice verb={verb} action={allowed ? null : (action?.reason ?? "Not offered by the control plane.")} preview={priced ? preview.data : undefined} ratioFault={found.find((fault) => fault.field === "emb_ratio")?.text ?? null} />
        {verb === "override" && <TtlField text={ttlText} onChange={setTtlText} disabled={!allowed} fault={faultOf("ttl_seconds")} />}
        <Textarea
          label="Reason"
          placeholder={verb === "release" ? "Why the controller may have it back" : "Why, for whoever reads the audit log"}
          rows={2}
          disabled={!allowed}
          maxLength={240}
          value={reason}
          onChange={(event) => setReason(event.currentTarget.value)}
          error={faultOf("reason")}
        />
        <Outcome take={take} node={node} />
        <div className={s.actions}>
          <Button type="submit" variant="filled" loading={take.isPending} disabled={!allowed} title={allowed ? undefined : action?.reason}>
            {submitLabel(draft, deservesReview(priced ? preview.data : undefined))}
          </Button>
          <span className="tiny dim">Written to the audit log with your name.</span>
        </div>
      </form>
      {reviewing && preview.data && (
        <ReviewDialog name={name} draft={draft} preview={preview.data} onCancel={() => setReviewing(false)} onConfirm={submit} />
      )}
    </Panel>
  );
}

function submitLabel({ verb, ttlSeconds }: Draft, review: boolean): string {
  if (verb === "release") return "Release";
  if (review) return `Review ${verb}`;
  return verb === "pin" ? "Pin until released" : `Override for ${ttlSeconds === null ? "..." : duration(ttlSeconds)}`;
}

/** Who holds the node now, and until when. */
function Standing({ node }: { node: Node }) {
  const { mode, emb_ratio, actor, reason, expires_at } = node.spec;
  if (mode === "auto") return <p className="small quiet">The controller decides. Taking the node by hand stops it from moving this node.</p>;
  const until = expires_at === null ? "until released" : `until ${minutes(new Date(expires_at))} UTC`;
  return (
    <p className="small quiet">
      <b>{mode === "pin" ? "Pinned" : "Overridden"}</b> at {percent(emb_ratio)} % by {actor} {until}: “{reason}”
    </p>
  );
}

interface RatioFieldProps {
  embPercent: number | null;
  onChange: (value: number | null) => void;
  node: Node;
  disabled: boolean;
  fault: string | null;
}

function RatioField({ embPercent, onChange, node, disabled, fault }: RatioFieldProps) {
  const id = useId();
  const rails = node.spec.guard_rails;
  const low = rails.emb_ratio_min * 100;
  const high = rails.emb_ratio_max * 100;
  const pool = node.status.telemetry?.pool_bytes ?? null;
  const shown = embPercent ?? 50;
  function slide(value: number): void {
    onChange(Math.min(Math.max(value, low), high));
  }
  function leap(event: KeyboardEvent<HTMLInputElement>): void {
    const direction = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!direction || !event.shiftKey) return;
    event.preventDefault();
    slide(shown + direction * 5);
  }
  return (
    <div style={{ display: "grid", gap: 6 }}>
      <label className={s.label} htmlFor={id}>
        EMB share of the pool
      </label>
      <div className="row">
        <span className={s.track} style={{ flex: 1 }}>
          <input
            id={id}
            className={s.slider}
            type="range"
            min={0}
            max={100}
            step={STEP_PERCENT}
            value={shown}
            disabled={disabled}
            onChange={(event) => slide(Number(event.currentTarget.value))}
            onKeyDown={leap}
            aria-valuetext={`EMB ${shown.toFixed(1)} %, KV ${(100 - shown).toFixed(1)} %`}
            aria-describedby={`${id}-rails`}
            style={{ "--at": `${shown}%` } as CSSProperties}
          />
          <i className={s.blocked} style={{ left: 0, width: `${low}%` }} title={`Blocked by the guard rail at ${low.toFixed(0)} %`} />
          <i className={s.blocked} style={{ right: 0, width: `${100 - high}%` }} title={`Blocked by the guard rail at ${high.toFixed(0)} %`} />
        </span>
        <NumberInput
          aria-label="EMB share in percent"
          value={embPercent ?? ""}
          onChange={(value) => onChange(typeof value === "number" ? value : value === "" ? null : Number(value))}
          min={0}
          max={100}
          step={STEP_PERCENT}
          decimalScale={2}
          suffix=" %"
          disabled={disabled}
          error={fault !== null}
          clampBehavior="none"
          hideControls
          w={84}
        />
      </div>
      <div className={s.ends}>
        <span className={s.emb}>EMB {pool === null ? "" : bytes((pool * shown) / 100)}</span>
        <span className="dim" id={`${id}-rails`}>
          guard rails {low.toFixed(0)} to {high.toFixed(0)} %
        </span>
        <span className={s.kv}>KV {pool === null ? "" : bytes((pool * (100 - shown)) / 100)}</span>
      </div>
      {fault && <span className="tiny" style={{ color: "var(--crit)" }}>{fault}</span>}
    </div>
  );
}

/** What the wish costs: milliseconds where the node predicts them, else what the memory would hold. */
function PriceTag({ preview }: { preview: Preview | undefined }) {
  const change = preview ? expectedChangeMs(preview) : null;
  const move = { term: "Time to move", value: duration(preview?.change.move_seconds) };
  if (preview && change === null) return <Numbers entries={[...heldMore(preview), move]} />;
  const tone = change === null || Math.abs(change) < 0.05 ? undefined : change > 0 ? "worse" : "better";
  const expected = preview?.after.predicted ? `${milliseconds(preview.after.predicted.latency_ms_p99)} ms` : "n/a";
  return (
    <Numbers
      entries={[
        { term: "P99 expected", value: expected },
        { term: "Change", value: change === null ? "n/a" : `${signed(change)} ms`, ...(tone && { tone }) },
        move,
      ]}
    />
  );
}

interface AdviceProps {
  verb: Verb;
  /** Why the verb is not allowed, or null. */
  action: string | null;
  preview: Preview | undefined;
  ratioFault: string | null;
}

/** One sentence on what will happen, or on why it cannot. */
function Advice({ verb, action, preview, ratioFault }: AdviceProps) {
  if (action !== null) return <Note tone="warn">{action}</Note>;
  if (verb === "release") return <Note icon={Check}>The controller takes over from the present ratio, one bounded step at a time.</Note>;
  if (ratioFault) return <Note tone="crit">{ratioFault} An admin can widen them for the cluster.</Note>;
  if (!preview) return <Note>Asking what this would do.</Note>;
  const change = expectedChangeMs(preview);
  const moved = `${bytes(preview.change.moved_bytes)} change owner.`;
  if (change === null) return <Note tone="ok">Inside all guard rails. {moved} This node predicts no latency, so the effect is seen afterwards.</Note>;
  if (isSlower(preview)) {
    return (
      <Note tone="warn">
        <b>P99 is expected to rise by {milliseconds(change)} ms</b>{preview.warnings.includes("over_slo") ? ", over SLO" : ""}. You will be asked to confirm.
      </Note>
    );
  }
  if (preview.warnings.includes("over_slo")) {
    return (
      <Note tone="warn">
        <b>P99 is expected to stay over SLO.</b> You will be asked to confirm.
      </Note>
    );
  }
  return <Note tone="ok">Inside all guard rails. {moved}</Note>;
}

function TtlField({ text, onChange, disabled, fault }: { text: string; onChange: (text: string) => void; disabled: boolean; fault: string | null }) {
  const seconds = parseTtlSeconds(text);
  return (
    <div style={{ display: "grid", gap: 4 }}>
      <span className={s.label}>Ends after</span>
      <div className="row wrap">
        <Segments
          label="Ends after"
          value={String(seconds ?? "")}
          onChange={(value) => !disabled && onChange(`${Number(value) / 60}m`)}
          options={TTL_CHOICES.map((choice) => ({ value: String(choice.seconds), label: choice.label }))}
        />
        <TextInput aria-label="Time to live" value={text} onChange={(event) => onChange(event.currentTarget.value)} disabled={disabled} error={fault !== null} w={72} />
      </div>
      {fault && <span className="tiny" style={{ color: "var(--crit)" }}>{fault}</span>}
    </div>
  );
}

/** What became of the last wish: refused, on its way to the node, or in force there. */
function Outcome({ take, node }: { take: ReturnType<typeof useTake>; node: Node }) {
  if (take.error) {
    return (
      <Note tone="crit" role="alert">
        {refusalText(take.error, node.metadata.name)}
      </Note>
    );
  }
  if (!take.data) return null;
  const { generation } = take.data.node.metadata;
  if (node.status.observed_generation >= generation) {
    return (
      <Note tone="ok" role="status">
        The node confirmed it: generation {generation} is in force.
      </Note>
    );
  }
  return <Note role="status">Stored. Waiting for the node to confirm generation {generation}.</Note>;
}
