/** Times are UTC everywhere on the screen; what is near is told as a duration. */

function two(value: number): string {
  return String(value).padStart(2, "0");
}

/** "02:47:12" */
export function clock(at: Date): string {
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
}

/** "02:47" */
export function minutes(at: Date): string {
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
}

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** "Mon 23 Nov" */
export function day(at: Date): string {
  return `${DAYS[at.getUTCDay()]} ${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
}

/** Time of day for today, with the date for another day: "02:47:12" or "22 Nov 23:50". */
export function logTime(at: Date, now: Date): string {
  if (at.toISOString().slice(0, 10) === now.toISOString().slice(0, 10)) return clock(at);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]} ${minutes(at)}`;
}

/** Two largest units of a duration: 7_325 -> "2 h 02 min", 41 -> "41 s". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "n/a";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) {
    const rest = whole % 60;
    return rest === 0 || whole >= 600 ? `${Math.floor(whole / 60)} min` : `${Math.floor(whole / 60)} min ${two(rest)} s`;
  }
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86_400)} d ${two(Math.floor((whole % 86_400) / 3600))} h`;
}

/** What is left until `until`, or null when it has passed. */
export function secondsLeft(until: string | null | undefined, nowMs: number): number | null {
  if (!until) return null;
  const left = (Date.parse(until) - nowMs) / 1000;
  return Number.isFinite(left) && left > 0 ? left : null;
}

/** Short form for tiles: 1_080 -> "18 m left". */
export function shortLeft(seconds: number): string {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s left`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} m left`;
  return `${Math.round(seconds / 3600)} h left`;
}

const TTL_PATTERN = /^\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\s*$/;
const TTL_SECONDS: Record<string, number> = { s: 1, m: 60, min: 60, h: 3600, d: 86_400 };

/** What a person types as a time to live: "30m", "90 s", "2h"; a bare number is minutes. */
export function parseTtlSeconds(text: string): number | null {
  const match = TTL_PATTERN.exec(text);
  if (!match) return null;
  return Math.round(Number(match[1]) * (TTL_SECONDS[match[2] ?? "m"] ?? 60));
}
