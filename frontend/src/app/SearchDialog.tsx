import { Modal, TextInput } from "@mantine/core";
import { Search } from "lucide-react";
import { type KeyboardEvent, useMemo, useState } from "react";
import { useNavigate } from "react-router";
import { useMe, useNodes } from "../api/queries";
import { ModeBadge } from "../components/Chip";
import { modeOf } from "../pages/fleet/nodeFilter";
import { DESTINATIONS } from "./destinations";
import s from "./SearchDialog.module.css";

interface Hit {
  key: string;
  label: string;
  group: "Pages" | "Nodes";
  path: string;
  mode?: string;
}

/** More than this would have to be read instead of recognised. */
const PER_GROUP = 6;

/** `/`: jump to a page or a node by typing a part of its name. */
export function SearchDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  return (
    // No transition: who types on after `/` must find the field focused already.
    <Modal
      opened={opened}
      onClose={onClose}
      withCloseButton={false}
      padding={0}
      size={520}
      aria-label="Search"
      yOffset="12vh"
      centered={false}
      transitionProps={{ duration: 0 }}
    >
      {opened && <SearchBody onClose={onClose} />}
    </Modal>
  );
}

function useHits(text: string): Hit[] {
  const { data: me } = useMe();
  const { data: nodes } = useNodes();
  return useMemo(() => {
    const wanted = text.trim().toLowerCase();
    const pages: Hit[] = DESTINATIONS.filter((page) => me?.permissions.includes(page.permission)).map((page) => ({
      key: page.path,
      label: page.label,
      group: "Pages",
      path: page.path,
    }));
    const machines: Hit[] = (nodes ?? []).map((node) => ({
      key: node.metadata.name,
      label: node.metadata.name,
      group: "Nodes",
      path: `/nodes/${encodeURIComponent(node.metadata.name)}`,
      mode: modeOf(node),
    }));
    return [machines, pages].flatMap((group) => group.filter((hit) => hit.label.toLowerCase().includes(wanted)).slice(0, PER_GROUP));
  }, [text, me, nodes]);
}

function SearchBody({ onClose }: { onClose: () => void }) {
  const [text, setText] = useState("");
  const [chosen, setChosen] = useState(0);
  const navigate = useNavigate();
  const hits = useHits(text);
  const current = Math.min(chosen, hits.length - 1);

  function go(hit: Hit | undefined): void {
    if (!hit) return;
    onClose();
    void navigate(hit.path);
  }
  function move(event: KeyboardEvent): void {
    if (event.key === "ArrowDown") setChosen(Math.min(current + 1, hits.length - 1));
    else if (event.key === "ArrowUp") setChosen(Math.max(current - 1, 0));
    else if (event.key === "Enter") go(hits[current]);
    else return;
    event.preventDefault();
  }

  return (
    <div onKeyDown={move}>
      <TextInput
        autoFocus
        data-autofocus
        variant="unstyled"
        size="md"
        px="md"
        leftSection={<Search size={16} />}
        placeholder="Node or page"
        aria-label="Search or jump to"
        role="combobox"
        aria-expanded
        aria-controls="search-hits"
        aria-activedescendant={hits[current] ? `hit-${current}` : undefined}
        value={text}
        onChange={(event) => {
          setText(event.currentTarget.value);
          setChosen(0);
        }}
      />
      <ul className={s.hits} id="search-hits" role="listbox" aria-label="Results">
        {hits.map((hit, index) => (
          <li key={hit.key} id={`hit-${index}`} role="option" aria-selected={index === current} className={s.hit} onClick={() => go(hit)} onMouseEnter={() => setChosen(index)}>
            <span className={hit.group === "Nodes" ? "mono" : ""}>{hit.label}</span>
            <span className="end">{hit.mode ? <ModeBadge mode={hit.mode} plain /> : <span className="tiny dim">page</span>}</span>
          </li>
        ))}
        {hits.length === 0 && <li className={`${s.none} small dim`}>Nothing matches. Names of nodes and pages are searched.</li>}
      </ul>
    </div>
  );
}
