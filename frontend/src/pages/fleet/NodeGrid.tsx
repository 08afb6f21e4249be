import { Button, Select, TextInput } from "@mantine/core";
import { LayoutGrid, Rows3, Search, TriangleAlert } from "lucide-react";
import { type KeyboardEvent, useRef, useState } from "react";
import { useSearchParams } from "react-router";
import { useNodeTails } from "../../api/queries";
import type { Node } from "../../api/types";
import type { Sample } from "../../charts/columns";
import { modeLook } from "../../components/Chip";
import { Keys } from "../../components/Keys";
import { Empty, Panel } from "../../components/Panel";
import { Segments } from "../../components/Segments";
import { useShortcuts } from "../../app/useShortcuts";
import { asFilter, asSort, counts, type Filter, FILTERS, matches, type Sort, sorted } from "./nodeFilter";
import { NodeTable } from "./NodeTable";
import { NodeTile } from "./NodeTile";
import s from "./NodeGrid.module.css";

const SORT_LABELS: { value: Sort; label: string }[] = [
  { value: "attention", label: "Needs attention" },
  { value: "name", label: "Name" },
  { value: "latency", label: "P99, highest first" },
  { value: "ratio", label: "EMB share" },
];

/** The order stays while somebody points at the grid: a tile must not move away under the hand. */
function useSteadyOrder(nodes: Node[], held: boolean): Node[] {
  const last = useRef<string[]>([]);
  if (!held) last.current = nodes.map((node) => node.metadata.name);
  const place = new Map(last.current.map((name, index) => [name, index]));
  return [...nodes].sort((a, b) => (place.get(a.metadata.name) ?? Infinity) - (place.get(b.metadata.name) ?? Infinity));
}

function useGridUrl() {
  const [search, setSearch] = useSearchParams();
  function set(name: string, value: string, fallback: string): void {
    setSearch(
      (before) => {
        const after = new URLSearchParams(before);
        if (value === fallback) after.delete(name);
        else after.set(name, value);
        return after;
      },
      { replace: true },
    );
  }
  return {
    filter: asFilter(search.get("mode")),
    sort: asSort(search.get("sort")),
    text: search.get("q") ?? "",
    view: search.get("view") === "table" ? ("table" as const) : ("tiles" as const),
    search: search.toString(),
    set,
    clear: () =>
      setSearch(
        (before) => {
          const after = new URLSearchParams(before);
          after.delete("mode");
          after.delete("q");
          return after;
        },
        { replace: true },
      ),
  };
}

/** A tile shows the last minute and a half. */
const TREND_SAMPLES = 90;

function trendOf(tail: readonly Sample[] | undefined): (number | null)[] {
  return (tail ?? []).slice(-TREND_SAMPLES).map((sample) => sample.values.latency_ms_p99 ?? null);
}

/** Arrow keys walk over the tiles; the columns are read from where they lie. */
function walk(event: KeyboardEvent<HTMLDivElement>): void {
  const tiles = [...event.currentTarget.querySelectorAll<HTMLElement>("[data-node]")];
  const at = tiles.indexOf(document.activeElement as HTMLElement);
  if (at < 0) return;
  const top = tiles[0]?.offsetTop;
  const columns = Math.max(1, tiles.filter((tile) => tile.offsetTop === top).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  tiles[Math.min(Math.max(at + step, 0), tiles.length - 1)]?.focus();
}

export function NodeGrid({ nodes, staleSeconds }: { nodes: Node[]; staleSeconds: number | null }) {
  const url = useGridUrl();
  const [held, setHeld] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const tails = useNodeTails();
  useShortcuts({ f: () => input.current?.focus() });
  const total = counts(nodes);
  const shown = nodes.filter((node) => matches(node, url.filter, url.text));
  const ordered = useSteadyOrder(sorted(shown, url.sort), held);

  return (
    <Panel
      title="Nodes"
      note={`${shown.length} of ${nodes.length}`}
      staleSeconds={staleSeconds}
      aside={
        <span className="row end">
          <Select
            aria-label="Order"
            data={SORT_LABELS}
            value={url.sort}
            onChange={(value) => url.set("sort", value ?? "attention", "attention")}
            w={150}
          />
          <Segments
            label="View"
            value={url.view}
            onChange={(view) => url.set("view", view, "tiles")}
            options={[
              { value: "tiles", label: <LayoutGrid size={14} aria-label="Tiles" />, title: "Tiles" },
              { value: "table", label: <Rows3 size={14} aria-label="Table" />, title: "Table" },
            ]}
          />
        </span>
      }
    >
      <div className={s.toolbar}>
        <TextInput
          ref={input}
          className={s.search}
          leftSection={<Search size={14} />}
          rightSection={url.text ? null : <Keys keys="f" />}
          placeholder="Node name"
          aria-label="Filter nodes by name"
          value={url.text}
          onChange={(event) => url.set("q", event.currentTarget.value, "")}
          onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
        />
        <span className={s.chips} role="group" aria-label="Filter by mode">
          {FILTERS.filter((filter) => filter === "all" || total[filter] > 0 || filter === url.filter).map((filter) => (
            <FilterChip key={filter} filter={filter} count={total[filter]} pressed={filter === url.filter} onPress={() => url.set("mode", filter, "all")} />
          ))}
        </span>
      </div>
      <div onMouseEnter={() => setHeld(true)} onMouseLeave={() => setHeld(false)} onFocus={() => setHeld(true)} onBlur={() => setHeld(false)} onKeyDown={walk}>
        {shown.length === 0 && (
          <div style={{ height: 132 }}>
            <Empty>
              <p>No node matches this filter.</p>
              <Button onClick={url.clear}>Clear filter</Button>
            </Empty>
          </div>
        )}
        {url.view === "table" && shown.length > 0 && <NodeTable nodes={ordered} search={url.search} />}
        {url.view === "tiles" && (
          <div className={`${s.tiles} ${staleSeconds === null ? "" : "muted-data"}`}>
            {ordered.map((node) => (
              <NodeTile key={node.metadata.name} node={node} trend={trendOf(tails[node.metadata.name])} search={url.search} />
            ))}
          </div>
        )}
      </div>
    </Panel>
  );
}

interface FilterChipProps {
  filter: Filter;
  count: number;
  pressed: boolean;
  onPress: () => void;
}

function FilterChip({ filter, count, pressed, onPress }: FilterChipProps) {
  const look = filter === "all" ? null : filter === "attention" ? { word: "Attention", icon: TriangleAlert } : modeLook(filter);
  const Icon = look?.icon;
  return (
    <button type="button" className={s.filter} aria-pressed={pressed} onClick={onPress}>
      {Icon && <Icon size={12} aria-hidden />}
      {look?.word ?? "All"} <b>{count}</b>
    </button>
  );
}
