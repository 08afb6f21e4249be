import { Button, Checkbox, Modal, TextInput } from "@mantine/core";
import { type FormEvent, useState } from "react";
import { ApiProblem } from "../../api/problem";
import type { Node, Preview } from "../../api/types";
import { Note } from "../../components/Note";
import { Numbers } from "../../components/Numbers";
import { bytes, parseBytes } from "../../format/number";
import { refusalText } from "./actions";
import { type SizeFault, sizeFaults, sizeLimits, type SizeLimits, shrinks } from "./resize";
import { heldMore } from "./take";
import { useResize, useSizePreview } from "./useResize";
import s from "./TakePanel.module.css";

interface Props {
  node: Node;
  etag: string;
  onClose: () => void;
}

/** The size in words that can be typed again: exact where the unit allows, else plain bytes. */
function startText({ spec, status }: Node): string {
  const now = spec.pool_bytes ?? status.telemetry?.pool_bytes ?? spec.pool_bytes_max;
  if (now === null) return "";
  const text = bytes(now);
  return parseBytes(text) === now ? text : String(now);
}

/** Another size of the node's pool. Who takes memory away types the node's name, since what no longer fits is evicted. */
export function SizeDialog({ node, etag, onClose }: Props) {
  const { name } = node.metadata;
  const [text, setText] = useState(() => startText(node));
  const [whole, setWhole] = useState(false);
  const [reason, setReason] = useState("");
  const [typed, setTyped] = useState("");
  const [touched, setTouched] = useState(false);
  const limits = sizeLimits(node);
  const poolBytes = whole ? null : (parseBytes(text) ?? undefined);
  const found = sizeFaults(poolBytes, reason, limits);
  const priced = !found.some((fault) => fault.field === "pool_bytes");
  const preview = useSizePreview(name, poolBytes ?? null, priced);
  const price = priced ? preview.data : undefined;
  const resize = useResize(name, etag, onClose);
  const unconfirmed = shrinks(price) && typed !== name;

  function submit(event: FormEvent): void {
    event.preventDefault();
    setTouched(true);
    if (found.length > 0 || poolBytes === undefined || price === undefined || unconfirmed) return;
    resize.mutate({ poolBytes, reason });
  }
  function faultOf(field: SizeFault["field"]): string | null {
    const fromServer = resize.error instanceof ApiProblem ? resize.error.about(field) : null;
    const typedAlready = touched || field === "pool_bytes";
    return fromServer ?? (typedAlready ? (found.find((fault) => fault.field === field)?.text ?? null) : null);
  }

  return (
    <Modal opened onClose={onClose} title={`Size of ${name}'s pool`} size={480}>
      <form className={s.form} onSubmit={submit} noValidate>
        <TextInput
          data-autofocus
          label="Pool size"
          description={limitsText(limits)}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          disabled={whole}
          error={faultOf("pool_bytes")}
        />
        <Checkbox
          label={limits.bytesMax === null ? "All that the node's profile has" : `All that the node's profile has, ${bytes(limits.bytesMax)}`}
          checked={whole}
          onChange={(event) => setWhole(event.currentTarget.checked)}
        />
        {priced && <Price preview={price} />}
        <TextInput
          label="Reason"
          placeholder="Why, for whoever reads the audit log"
          maxLength={240}
          value={reason}
          onChange={(event) => setReason(event.currentTarget.value)}
          error={faultOf("reason")}
        />
        {shrinks(price) && <TextInput label={`Type ${name} to confirm`} value={typed} onChange={(event) => setTyped(event.currentTarget.value)} />}
        {resize.error && (
          <Note tone="crit" role="alert">
            {refusalText(resize.error, name)}
          </Note>
        )}
        <div className="row" style={{ justifyContent: "flex-end" }}>
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" variant="filled" {...(shrinks(price) && { color: "red" })} disabled={unconfirmed || price === undefined} loading={resize.isPending}>
            {submitLabel(price)}
          </Button>
        </div>
      </form>
    </Modal>
  );
}

function limitsText({ bytesMin, bytesMax }: SizeLimits): string {
  return bytesMin === null || bytesMax === null ? "Rounded down to whole pages." : `${bytes(bytesMin)} to ${bytes(bytesMax)}, rounded down to whole pages.`;
}

function submitLabel(price: Preview | undefined): string {
  if (price === undefined || price.after.pool_bytes === price.before.pool_bytes) return "Set size";
  return `${shrinks(price) ? "Shrink" : "Grow"} to ${bytes(price.after.pool_bytes)}`;
}

/** What the pool would hold, and what becomes of what it holds now. */
function Price({ preview }: { preview: Preview | undefined }) {
  if (!preview) return <Note>Asking what this would do.</Note>;
  const { before, after, change } = preview;
  const share = `The split stays at ${(after.emb_ratio * 100).toFixed(0)} % EMB.`;
  return (
    <>
      <Numbers entries={[{ term: "Pool now", value: bytes(before.pool_bytes) }, ...heldMore(preview)]} />
      {shrinks(preview) && <Note tone="warn">{bytes(change.moved_bytes)} leave the pool; rows and prefixes that no longer fit are evicted. {share}</Note>}
      {after.pool_bytes > before.pool_bytes && <Note tone="ok">{bytes(change.moved_bytes)} join the pool, empty until traffic fills them. {share}</Note>}
      {after.pool_bytes === before.pool_bytes && <Note>This is the size it has.</Note>}
    </>
  );
}
