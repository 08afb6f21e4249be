/** Numbers as people read them: one decimal for ms and %, "n/a" for what is not known. */

export const NOT_KNOWN = "n/a";

type Maybe = number | null | undefined;

function known(value: Maybe): value is number {
  return value !== null && value !== undefined && Number.isFinite(value);
}

/** `12.34` ms -> "12.3"; from 1,000 ms on without decimals. */
export function milliseconds(value: Maybe): string {
  if (!known(value)) return NOT_KNOWN;
  return value >= 1000 ? grouped(Math.round(value)) : value.toFixed(1);
}

/** A share 0..1 as percent without its sign: `0.4213` -> "42.1". */
export function percent(ratio: Maybe, decimals = 1): string {
  return known(ratio) ? (ratio * 100).toFixed(decimals) : NOT_KNOWN;
}

/** A share with its sign: `0.4213` -> "42.1 %". */
export function percentWithSign(ratio: Maybe, decimals = 1): string {
  return known(ratio) ? `${percent(ratio, decimals)} %` : NOT_KNOWN;
}

/** The split of a pool as two whole numbers that add up to 100: `0.421` -> "42 / 58". */
export function split(embRatio: Maybe): string {
  if (!known(embRatio)) return NOT_KNOWN;
  const emb = Math.round(embRatio * 100);
  return `${emb} / ${100 - emb}`;
}

/** Thousands separated: `12345` -> "12,345". */
export function grouped(value: Maybe): string {
  return known(value) ? value.toLocaleString("en-US", { maximumFractionDigits: 0 }) : NOT_KNOWN;
}

const RATE_STEPS: [number, string][] = [
  [1e9, "G"],
  [1e6, "M"],
  [1e4, "k"],
];

/** A rate with its unit apart, so that the unit can be set smaller: `303600` -> ["303.6", "k"]. */
export function scaled(value: Maybe): [string, string] {
  if (!known(value)) return [NOT_KNOWN, ""];
  for (const [step, letter] of RATE_STEPS) {
    if (Math.abs(value) >= step) return [(value / (letter === "k" ? 1e3 : step)).toFixed(1), letter];
  }
  return [Math.abs(value) >= 100 ? grouped(value) : value.toFixed(1), ""];
}

/** How long a decision took: "951 µs", "18.7 ms". */
export function microseconds(value: Maybe): string {
  if (!known(value)) return NOT_KNOWN;
  return value < 1000 ? `${value.toFixed(0)} µs` : `${milliseconds(value / 1000)} ms`;
}

const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Binary bytes: `67108864` -> "64.0 MiB". */
export function bytes(value: Maybe): string {
  if (!known(value)) return NOT_KNOWN;
  let amount = value;
  let unit = 0;
  while (Math.abs(amount) >= 1024 && unit < BYTE_UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? amount.toFixed(0) : amount.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

const SIZE_PATTERN = /^(\d{1,20}(?:\.\d{1,20})?) ?(b|[kmgt]i?b)?$/;

/** What a person types as a size: "512 MiB", "40GiB", "80 GB" or plain bytes; null for anything else. */
export function parseBytes(text: string): number | null {
  const match = SIZE_PATTERN.exec(text.trim().toLowerCase());
  if (!match) return null;
  const unit = match[2] ?? "b";
  const amount = Number(match[1]) * (unit.includes("i") ? 1024 : 1000) ** "bkmgt".indexOf(unit[0] ?? "b");
  return Number.isSafeInteger(amount) ? amount : null;
}

/** A difference with its sign, and a true minus: `-1.3` -> "−1.3". */
export function signed(value: Maybe, decimals = 1): string {
  if (!known(value)) return NOT_KNOWN;
  const text = Math.abs(value).toFixed(decimals);
  if (Number(text) === 0) return text;
  const readable = decimals === 0 ? grouped(Number(text)) : text;
  return `${value < 0 ? "−" : "+"}${readable}`;
}
