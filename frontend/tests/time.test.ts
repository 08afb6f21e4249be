import { describe, expect, it } from "vitest";
import { clock, day, duration, logTime, parseTtlSeconds, secondsLeft, shortLeft } from "../src/format/time";

const AT = new Date("2026-11-23T02:07:09Z");

describe("times", () => {
  it("are UTC whatever the machine's zone", () => {
    expect(clock(AT)).toBe("02:07:09");
    expect(day(AT)).toBe("Mon 23 Nov");
    expect(logTime(AT, new Date("2026-11-23T23:59:59Z"))).toBe("02:07:09");
    expect(logTime(AT, new Date("2026-11-24T00:00:00Z"))).toBe("23 Nov 02:07");
  });

  it("tell a duration in its two largest units", () => {
    expect([0, 41, 61, 599, 600, 1800, 7325, 90_000].map(duration)).toEqual(["0 s", "41 s", "1 min 01 s", "9 min 59 s", "10 min", "30 min", "2 h 02 min", "1 d 01 h"]);
    expect(duration(null)).toBe("n/a");
    expect([5, 1079, 7200].map(shortLeft)).toEqual(["5 s left", "18 m left", "2 h left"]);
  });

  it("know what is left and when nothing is", () => {
    expect(secondsLeft("2026-11-23T02:08:09Z", AT.getTime())).toBe(60);
    expect(secondsLeft("2026-11-23T02:00:00Z", AT.getTime())).toBeNull();
    expect(secondsLeft(null, AT.getTime())).toBeNull();
  });

  it("read a time to live as people type it", () => {
    expect(["30", "30m", " 90 s", "2h", "1.5h", "1d", "10 min"].map(parseTtlSeconds)).toEqual([1800, 1800, 90, 7200, 5400, 86_400, 600]);
    expect(["", "soon", "-5m", "5 weeks", "NaN"].map(parseTtlSeconds)).toEqual([null, null, null, null, null]);
  });
});
