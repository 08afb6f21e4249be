import { Button } from "@mantine/core";
import { Check, WifiOff } from "lucide-react";
import { useEffect } from "react";
import { clock, duration } from "../format/time";
import { useLive, useLiveStore } from "../live/LiveProvider";
import { useNow } from "./useNow";
import s from "./Shell.module.css";

/** Polling is offered only after the stream had a fair chance to come back by itself. */
const OFFER_POLLING_AFTER_MS = 30_000;
/** Good news may go away by itself. */
const ANNOUNCE_MS = 6000;
/** A blink shorter than this is not worth a sentence. */
const WORTH_SAYING_MS = 3000;

/** Says that the stream is gone, what that means and what happens next; then that it is back. */
export function StreamBanner() {
  const { link, polling } = useLive();
  const { retryNow, setPolling, announce } = useLiveStore();
  const nowMs = useNow(500);
  useEffect(() => {
    if (link.filledGapMs === null) return undefined;
    const timer = setTimeout(announce, ANNOUNCE_MS);
    return () => clearTimeout(timer);
  }, [link.filledGapMs, announce]);

  if (link.lostAtMs === null) {
    if (link.filledGapMs === null || link.filledGapMs < WORTH_SAYING_MS) return null;
    return (
      <div className={`${s.banner} ${s.good}`} role="status">
        <Check size={16} aria-hidden />
        <span>
          <b>Live again.</b> {duration(link.filledGapMs / 1000)} of missed data was filled in.
        </span>
      </div>
    );
  }
  const lostMs = nowMs - link.lostAtMs;
  const from = link.lastMessageAtMs === null ? null : clock(new Date(link.lastMessageAtMs));
  const next = link.retryAtMs === null ? "Connecting" : `Retry ${link.attempt} in ${Math.max(0, Math.ceil((link.retryAtMs - nowMs) / 1000))} s`;
  return (
    <div className={s.banner} role="alert">
      <WifiOff size={16} aria-hidden />
      <span>
        <b>Live stream lost {duration(lostMs / 1000)} ago.</b>{" "}
        <span className="quiet">
          {from && <>Numbers below are from {from} UTC. </>}Nodes keep running on their own controllers.
        </span>
      </span>
      <span className="row end">
        <span className="small quiet nowrap" aria-live="off">
          {polling ? "Polling every 10 s" : next}
        </span>
        <Button onClick={retryNow}>Retry now</Button>
        {lostMs >= OFFER_POLLING_AFTER_MS && !polling && <Button onClick={() => setPolling(true)}>Poll every 10 s</Button>}
      </span>
    </div>
  );
}
