import { describe, expect, it } from "vitest";
import { bytes, grouped, microseconds, milliseconds, parseBytes, percent, percentWithSign, scaled, signed, split } from "../src/format/number";

describe("numbers as people read them", () => {
  it("gives milliseconds one decimal, and none where they no longer matter", () => {
    expect([0, 0.04, 43.14, 999.96, 1234.5].map(milliseconds)).toEqual(["0.0", "0.0", "43.1", "1000.0", "1,235"]);
  });

  it("never prints NaN, Infinity or null", () => {
    for (const value of [null, undefined, NaN, Infinity]) {
      expect([milliseconds(value), percent(value), percentWithSign(value), split(value), grouped(value), scaled(value)[0], bytes(value), signed(value)]).toEqual(
        Array(8).fill("n/a"),
      );
    }
  });

  it("splits a pool into two whole numbers that add up", () => {
    for (const ratio of [0, 0.005, 0.333, 0.4249, 0.5, 0.995, 1]) {
      const [emb, kv] = split(ratio).split(" / ").map(Number);
      expect((emb ?? 0) + (kv ?? 0)).toBe(100);
    }
    expect(split(0.421)).toBe("42 / 58");
  });

  it("scales rates and bytes", () => {
    expect(scaled(12.34)).toEqual(["12.3", ""]);
    expect(scaled(9999)).toEqual(["9,999", ""]);
    expect(scaled(303_600)).toEqual(["303.6", "k"]);
    expect(scaled(4_910_000)).toEqual(["4.9", "M"]);
    expect([0, 1023, 65_536, 64 * 2 ** 20, 96 * 2 ** 30].map(bytes)).toEqual(["0 B", "1023 B", "64.0 KiB", "64.0 MiB", "96.0 GiB"]);
  });

  it("reads sizes as people type them, and nothing else", () => {
    expect(["512MiB", "40 GiB", "80GB", "64kib", "67108864", "1B"].map(parseBytes)).toEqual([512 * 2 ** 20, 40 * 2 ** 30, 80e9, 65_536, 67_108_864, 1]);
    expect(["", "MiB", "512M", "half", "-1", "1e9", "1.5B", "5 5", "9".repeat(21)].map(parseBytes)).toEqual(Array(9).fill(null));
  });

  it("signs a difference with a true minus, and nothing for nothing", () => {
    expect(signed(-12345, 0)).toBe("−12,345");
    expect([951.4, 18_685, 1_551_581].map(microseconds)).toEqual(["951 µs", "18.7 ms", "1,552 ms"]);
    expect([1.26, -1.26, 0.04, -0.04, 0].map((value) => signed(value))).toEqual(["+1.3", "−1.3", "0.0", "0.0", "0.0"]);
  });
});
