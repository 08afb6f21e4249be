import { Checkbox, Modal } from "@mantine/core";
import { useState } from "react";
import { Keys } from "../components/Keys";
import { SHORTCUTS } from "./shortcuts";
import { setShortcutsEnabled, shortcutsEnabled } from "./useShortcuts";

export function ShortcutsDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const [enabled, setEnabled] = useState(shortcutsEnabled);
  function toggle(next: boolean): void {
    setShortcutsEnabled(next);
    setEnabled(next);
  }
  return (
    <Modal opened={opened} onClose={onClose} title="Keyboard shortcuts" size="lg">
      <dl style={{ display: "grid", gridTemplateColumns: "repeat(auto-fit, minmax(250px, 1fr))", gap: "2px 28px" }}>
        {SHORTCUTS.map((shortcut) => (
          <div key={shortcut.keys} className="row" style={{ minHeight: 30, borderBottom: "1px solid var(--line)" }}>
            <dt className="small quiet">{shortcut.does}</dt>
            <dd className="end">
              <Keys keys={shortcut.keys} />
            </dd>
          </div>
        ))}
      </dl>
      <Checkbox mt="md" checked={enabled} onChange={(event) => toggle(event.currentTarget.checked)} label="Single-letter shortcuts" />
    </Modal>
  );
}
