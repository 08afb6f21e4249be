import { Button, Modal, TextInput } from "@mantine/core";
import { useState } from "react";
import type { Preview } from "../../api/types";
import { Note } from "../../components/Note";
import { SplitBar } from "../../components/SplitBar";
import { bytes, grouped, milliseconds, percentWithSign, signed } from "../../format/number";
import { duration, minutes } from "../../format/time";
import { type Draft, expectedChangeMs, isSlower } from "./take";
import s from "./TakePanel.module.css";

interface Props {
  name: string;
  draft: Draft;
  preview: Preview;
  onCancel: () => void;
  onConfirm: () => void;
}

/** Before and after of a wish that is expected to hurt. The name has to be typed, so that nobody does it by habit. */
export function ReviewDialog({ name, draft, preview, onCancel, onConfirm }: Props) {
  const [typed, setTyped] = useState("");
  const { before, after } = preview;
  const change = expectedChangeMs(preview);
  const until = draft.ttlSeconds === null ? "" : minutes(new Date(Date.now() + draft.ttlSeconds * 1000));
  const title =
    draft.verb === "pin"
      ? `Pin ${name} at ${percentWithSign(after.emb_ratio)} EMB?`
      : `Override ${name} to ${percentWithSign(after.emb_ratio)} EMB for ${duration(draft.ttlSeconds)}?`;
  return (
    <Modal opened onClose={onCancel} title={title} size={560}>
      <p className="quiet">
        The controller stops moving this node {draft.verb === "pin" ? "until you release it." : `until ${until} UTC or until you release it.`}
      </p>
      <div className={s.compare}>
        <span className="small quiet">Now</span>
        <SplitBar embRatio={before.emb_ratio} height={10} />
        <span className="small">{percentWithSign(before.emb_ratio)} EMB</span>
        <span className="small quiet">After</span>
        <SplitBar embRatio={after.emb_ratio} height={10} />
        <span className="small">{percentWithSign(after.emb_ratio)} EMB</span>
      </div>
      <table className="data-table">
        <thead>
          <tr>
            <th />
            <th className="num">Now</th>
            <th className="num">After</th>
            <th className="num">Change</th>
          </tr>
        </thead>
        <tbody>
          {before.predicted && after.predicted && (
            <tr>
              <td>P99, predicted</td>
              <td className="num">{milliseconds(before.predicted.latency_ms_p99)} ms</td>
              <td className="num">
                <b>{milliseconds(after.predicted.latency_ms_p99)} ms</b>
              </td>
              <td className={`num ${(change ?? 0) > 0 ? s.worse : s.better}`}>
                {signed(change)} ms, {(change ?? 0) > 0 ? "worse" : "better"}
              </td>
            </tr>
          )}
          <tr>
            <td>Embedding rows in HBM</td>
            <td className="num">{grouped(before.emb_rows)}</td>
            <td className="num">{grouped(after.emb_rows)}</td>
            <td className="num">{signed(preview.change.emb_rows, 0)}</td>
          </tr>
          <tr>
            <td>Full user histories in HBM</td>
            <td className="num">{grouped(before.kv_users)}</td>
            <td className="num">{grouped(after.kv_users)}</td>
            <td className="num">{signed(preview.change.kv_users, 0)}</td>
          </tr>
          <tr>
            <td>Memory that changes owner</td>
            <td />
            <td className="num">{bytes(preview.change.moved_bytes)}</td>
            <td className="num">in {duration(preview.change.move_seconds)}</td>
          </tr>
        </tbody>
      </table>
      <div style={{ margin: "12px 0" }}>
        <Note tone="crit">
          <b>{isSlower(preview) ? "This is expected to make things slower." : "P99 is expected to stay over SLO."}</b> Reason: “{draft.reason.trim()}”
        </Note>
      </div>
      <TextInput
        data-autofocus
        label={`Type ${name} to confirm`}
        value={typed}
        onChange={(event) => setTyped(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Enter" && typed === name && onConfirm()}
      />
      <div className="row" style={{ justifyContent: "flex-end", marginTop: 16 }}>
        <Button onClick={onCancel}>Cancel</Button>
        <Button variant="filled" color="red" disabled={typed !== name} onClick={onConfirm}>
          {draft.verb === "pin" ? "Pin anyway" : "Override anyway"}
        </Button>
      </div>
    </Modal>
  );
}
