import { useEffect, useRef, useState } from "react";
import { Link } from "react-router";
import { useEvents } from "../../api/queries";
import type { FleetEvent } from "../../api/types";
import { Empty, Loaded, Panel } from "../../components/Panel";
import { logTime } from "../../format/time";
import { eventLook, type EventLine, fold } from "./eventLook";
import s from "./EventFeed.module.css";

const HEIGHT = 420;

interface Props {
  /** Only about this node. */
  target?: string;
  height?: number;
}

/** Newest first. Holds still while somebody reads it, and says how many came meanwhile. */
export function EventFeed({ target, height = HEIGHT }: Props) {
  const query = useEvents(target);
  const [heldFrom, setHeldFrom] = useState<number | null>(null);
  const newest = useRef(0);
  useEffect(() => {
    newest.current = query.data?.[0]?.id ?? 0;
  }, [query.data]);
  return (
    <Panel title="Events" flush>
      <Loaded
        query={query}
        height={height}
        isEmpty={(events) => events.length === 0}
        empty={
          <Empty>
            <p>Nothing has happened yet. Overrides, pins, nodes that come and go appear here.</p>
          </Empty>
        }
      >
        {(events) => (
          <div
            className={s.list}
            style={{ height }}
            role="log"
            aria-label="Events, newest first"
            tabIndex={0}
            onMouseEnter={() => setHeldFrom(newest.current)}
            onMouseLeave={() => setHeldFrom(null)}
          >
            <Waiting events={events} heldFrom={heldFrom} onShow={() => setHeldFrom(null)} />
            <ul>
              {fold(heldFrom === null ? events : events.filter((event) => event.id <= heldFrom)).map((line) => (
                <Line key={line.event.id} line={line} />
              ))}
            </ul>
          </div>
        )}
      </Loaded>
    </Panel>
  );
}

function Waiting({ events, heldFrom, onShow }: { events: FleetEvent[]; heldFrom: number | null; onShow: () => void }) {
  const count = heldFrom === null ? 0 : events.filter((event) => event.id > heldFrom).length;
  if (count === 0) return null;
  return (
    <button type="button" className={s.more} onClick={onShow}>
      {count} new
    </button>
  );
}

function reasonOf(event: FleetEvent): string {
  const detail = event.detail;
  if (typeof detail !== "object" || detail === null || !("reason" in detail)) return "";
  return typeof detail.reason === "string" ? detail.reason : "";
}

function Line({ line }: { line: EventLine }) {
  const { event, folded } = line;
  const { icon: Icon, tone } = eventLook(event);
  const reason = reasonOf(event);
  const at = new Date(event.at);
  return (
    <li className={s.event} data-tone={tone}>
      <Icon size={14} aria-hidden />
      <div className={s.text}>
        <Sentence event={event} />
        {folded > 0 && <span className="dim"> and {folded} more</span>}
        <div className="tiny dim">
          <time dateTime={event.at}>{logTime(at, new Date())}</time>
          {reason && <> “{reason}”</>}
        </div>
      </div>
    </li>
  );
}

/** The text as the server wrote it, with the node's name as a link. */
function Sentence({ event }: { event: FleetEvent }) {
  const at = event.target ? event.text.indexOf(event.target) : -1;
  if (at < 0 || event.kind.startsWith("whatif")) return <>{event.text}</>;
  return (
    <>
      {event.text.slice(0, at)}
      <Link className="mono" to={`/nodes/${encodeURIComponent(event.target)}`}>
        {event.target}
      </Link>
      {event.text.slice(at + event.target.length)}
    </>
  );
}
