/** How compared runs are drawn: by dash as well as by colour, the same in table and figure. */

export interface LineLook {
  color: string;
  dash: "solid" | "dash" | "dot";
}

const CONTROLLER: LineLook = { color: "accent", dash: "solid" };
const FIXED: LineLook[] = [
  { color: "line-1", dash: "dash" },
  { color: "line-2", dash: "dot" },
];

export function lineOf(label: string, labels: string[]): LineLook {
  if (!label.startsWith("static")) return CONTROLLER;
  const place = labels.filter((entry) => entry.startsWith("static")).indexOf(label);
  return FIXED[Math.max(0, place) % FIXED.length] as LineLook;
}
