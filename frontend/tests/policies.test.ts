import { describe, expect, it } from "vitest";
import type { Policy } from "../src/api/types";
import { changeText, changeWord, curveOf, mostInForce, usesOf, usesText } from "../src/pages/policies/policies";

const change = (mean: number | null, low: number | null, high: number | null) => ({ mean, low, high, pairs: 6 });

describe("a change against an opponent", () => {
  it("is written with its interval, and is not a number where nothing was compared", () => {
    expect(changeText(change(-0.031, -0.05, -0.01))).toBe("−3.1 % (−5.0 % to −1.0 %)");
    expect(changeText(change(0.0001, null, null))).toBe("0.0 %");
    expect(changeText(change(null, null, null))).toBe("n/a");
    expect(changeText(undefined)).toBe("n/a");
  });

  it("gets a word by its interval alone", () => {
    expect(changeWord(change(-0.03, -0.05, -0.01))).toBe("better");
    expect(changeWord(change(0.03, 0.01, 0.05))).toBe("worse");
    expect(changeWord(change(-0.03, -0.07, 0.01))).toBe("no clear change");
    expect(changeWord(change(-0.03, null, null))).toBe("");
  });
});

it("nodes that were told and nodes that do are one list", () => {
  const policy = { wanted_on: [{ node: "b", controller: "active" }, { node: "a", controller: "advisory" }], in_force_on: ["a", "c"] };
  expect(usesOf(policy as Policy)).toEqual([
    { node: "a", controller: "advisory", inForce: true },
    { node: "b", controller: "active", inForce: false },
    { node: "c", controller: "", inForce: true },
  ]);
  expect(usesText(policy as Policy)).toBe("1 active, 1 advisory, 1 from their start, 1 on the way");
});

it("the version that most nodes decide by is shown, and the first where there is none", () => {
  const version = (label: string, ...nodes: string[]) => ({ label, in_force_on: nodes }) as unknown as Policy;
  expect(mostInForce([version("paper v1"), version("helm v1", "a", "b"), version("helm v2", "c")])?.label).toBe("helm v1");
  expect(mostInForce([version("paper v1"), version("helm v1")])?.label).toBe("paper v1");
  expect(mostInForce([])).toBeUndefined();
});

it("a curve leaves out points without a number", () => {
  const points = [
    { steps: 464, reward_mean: -0.1, seconds: 9, loss: null },
    { steps: 928, reward_mean: 0.1, seconds: 18, loss: 0.02 },
  ];
  expect(curveOf(points, "loss")).toEqual({ steps: [928], values: [0.02] });
  expect(curveOf(points, "reward_mean").values).toEqual([-0.1, 0.1]);
});
