import { Pause, WifiOff } from "lucide-react";
import { duration } from "../format/time";
import { indicator } from "../live/link";
import { useLive, useLiveStore } from "../live/LiveProvider";
import { useNow } from "./useNow";
import s from "./Shell.module.css";

/** Live, paused, stale or offline: says how old the numbers are. A click pauses. */
export function LiveIndicator() {
  const { link, paused } = useLive();
  const { togglePause } = useLiveStore();
  const nowMs = useNow();
  const state = indicator(link, nowMs);
  const ageSeconds = link.lastMessageAtMs === null ? null : (nowMs - link.lastMessageAtMs) / 1000;
  if (paused) {
    return (
      <button type="button" className={`${s.live} ${s.warn}`} onClick={togglePause} title="Resume live updates (Space)">
        <Pause size={14} aria-hidden />
        <b>Paused</b>
      </button>
    );
  }
  if (state === "live") {
    return (
      <button type="button" className={`${s.live} ${s.ok}`} onClick={togglePause} title="Pause live updates (Space)">
        <span className={s.dot} />
        <b>Live</b>
      </button>
    );
  }
  if (state === "connecting") return <span className={s.live}>Connecting</span>;
  return (
    <button type="button" className={`${s.live} ${state === "offline" ? s.crit : s.warn}`} onClick={togglePause} title="Pause live updates (Space)">
      <WifiOff size={14} aria-hidden />
      <b>{state === "offline" ? "Offline" : "Stale"}</b>
      <span className={`dim ${s.hideSmall}`}>{ageSeconds === null ? "" : duration(ageSeconds)}</span>
    </button>
  );
}
