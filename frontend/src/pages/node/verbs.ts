export const VERBS = ["override", "pin", "release"] as const;
export type Verb = (typeof VERBS)[number];

export function asVerb(text: string | null): Verb {
  return VERBS.find((verb) => verb === text) ?? "override";
}
