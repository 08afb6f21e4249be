import { Button, TextInput } from "@mantine/core";
import { Search } from "lucide-react";
import { type ReactNode, useState } from "react";
import { Link, useSearchParams } from "react-router";
import { useAudit } from "../../api/queries";
import type { AuditEntry } from "../../api/types";
import { useTitle } from "../../app/useTitle";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { logTime } from "../../format/time";
import { changes, filterText, parseFilter } from "./audit";
import s from "./AuditPage.module.css";

const HEIGHT = 560;

/** The cursor of a link the API sent along. */
function cursorOf(url: string | null | undefined): string {
  return !url ? "" : (new URL(url, location.origin).searchParams.get("cursor") ?? "");
}

/** Who changed what, and why. Filter and selected entry are in the address. */
export default function AuditPage() {
  useTitle("Audit log");
  const [search, setSearch] = useSearchParams();
  const filter = {
    actor: search.get("actor") ?? "",
    target: search.get("target") ?? "",
    action: search.get("action") ?? "",
    cursor: search.get("cursor") ?? "",
  };
  const query = useAudit(filter);
  const entries = query.data?.results ?? [];
  const chosen = entries.find((entry) => String(entry.id) === search.get("entry"));

  function go(changed: Record<string, string>): void {
    const after = new URLSearchParams(search);
    for (const [name, value] of Object.entries(changed)) {
      if (value) after.set(name, value);
      else after.delete(name);
    }
    setSearch(after);
  }

  return (
    <>
      <div className="row" style={{ minHeight: 28 }}>
        <h1>Audit log</h1>
        <span className="small quiet">append-only; dry runs are not entries</span>
      </div>
      <div className={s.layout}>
        <Panel title="Entries" aside={<FilterField filter={filter} onFilter={(next) => go({ ...next, cursor: "", entry: "" })} />} flush>
          <Loaded
            query={query}
            height={HEIGHT}
            isEmpty={(page) => page.results.length === 0}
            empty={
              <Empty>
                <p>No change recorded for this filter.</p>
              </Empty>
            }
          >
            {(page) => (
              <>
                <div className="scroll-x" style={{ minHeight: HEIGHT }}>
                  <table className="data-table">
                    <thead>
                      <tr>
                        <th>Time (UTC)</th>
                        <th>Actor</th>
                        <th>Action</th>
                        <th>Target</th>
                        <th>Reason</th>
                      </tr>
                    </thead>
                    <tbody>
                      {page.results.map((entry) => (
                        <Row key={entry.id} entry={entry} chosen={entry === chosen} onChoose={() => go({ entry: entry === chosen ? "" : String(entry.id) })} />
                      ))}
                    </tbody>
                  </table>
                </div>
                <div className={s.foot}>
                  <span className="small dim">{page.results.length} entries on this page</span>
                  <span className="row end">
                    <Button disabled={!page.previous} onClick={() => go({ cursor: cursorOf(page.previous), entry: "" })}>
                      Newer
                    </Button>
                    <Button disabled={!page.next} onClick={() => go({ cursor: cursorOf(page.next), entry: "" })}>
                      Older
                    </Button>
                  </span>
                </div>
              </>
            )}
          </Loaded>
        </Panel>
        {chosen ? <Detail entry={chosen} /> : <Hint />}
      </div>
    </>
  );
}

function FilterField({ filter, onFilter }: { filter: { actor: string; target: string; action: string }; onFilter: (filter: Record<string, string>) => void }) {
  const [text, setText] = useState(() => filterText(filter));
  return (
    <form
      className="end"
      onSubmit={(event) => {
        event.preventDefault();
        onFilter({ ...parseFilter(text) });
      }}
    >
      <TextInput
        leftSection={<Search size={14} />}
        placeholder="actor: target: action:"
        aria-label="Filter entries, for instance target:node-0 action:node.override"
        w={280}
        value={text}
        onChange={(event) => setText(event.currentTarget.value)}
      />
    </form>
  );
}

function Row({ entry, chosen, onChoose }: { entry: AuditEntry; chosen: boolean; onChoose: () => void }) {
  return (
    <tr aria-selected={chosen} onClick={onChoose} style={{ cursor: "pointer" }}>
      <td>
        <button type="button" className={s.open} aria-expanded={chosen}>
          {logTime(new Date(entry.at), new Date())}
        </button>
      </td>
      <td className={entry.actor_kind === "system" ? "dim" : ""}>{entry.actor}</td>
      <td className="mono">{entry.action}</td>
      <td className="mono">{entry.target.length > 20 ? `${entry.target.slice(0, 8)}…` : entry.target}</td>
      <td className="fill quiet">{entry.reason}</td>
    </tr>
  );
}

function Hint() {
  return (
    <Panel title="Entry">
      <div style={{ height: 160 }}>
        <Empty>
          <p>Choose an entry to see what it changed.</p>
        </Empty>
      </div>
    </Panel>
  );
}

function Detail({ entry }: { entry: AuditEntry }) {
  return (
    <Panel title={entry.action} note={`entry ${entry.id}`}>
      <dl className={s.facts}>
        <Fact term="When">{new Date(entry.at).toISOString().replace("T", " ").replace("Z", " UTC")}</Fact>
        <Fact term="Actor">
          {entry.actor} ({entry.actor_kind})
        </Fact>
        <Fact term="Target">{entry.target_kind === "node" ? <Link className="mono" to={`/nodes/${encodeURIComponent(entry.target)}`}>{entry.target}</Link> : <span className="mono">{entry.target}</span>}</Fact>
        <Fact term="Request">
          <span className="mono">{entry.request_id || "none"}</span>
        </Fact>
      </dl>
      {entry.reason && (
        <>
          <h3>Reason</h3>
          <p>{entry.reason}</p>
        </>
      )}
      <h3>Change</h3>
      <pre className={s.diff} aria-label="Change">
        {changes(entry.before, entry.after).map((line) => (
          <div key={`${line.sign}${line.name}`} data-sign={line.sign}>
            {line.sign} {line.name}: {line.value}
          </div>
        ))}
      </pre>
    </Panel>
  );
}

function Fact({ term, children }: { term: string; children: ReactNode }) {
  return (
    <div>
      <dt>{term}</dt>
      <dd>{children}</dd>
    </div>
  );
}
