import { Checkbox, MultiSelect, TextInput } from "@mantine/core";
import { useNodes } from "../../api/queries";
import type { ApiProblem } from "../../api/problem";

export interface Targets {
  all: boolean;
  nodes: string[];
  reason: string;
}

export const NO_TARGETS: Targets = { all: false, nodes: [], reason: "" };
const REASON_LENGTH_MIN = 3;

/** As the API takes them: names, or all of them, never both. */
export function targetsOf({ all, nodes, reason }: Targets): { nodes?: string[]; all_nodes: boolean; reason: string } {
  return all ? { all_nodes: true, reason: reason.trim() } : { nodes, all_nodes: false, reason: reason.trim() };
}

export function isComplete({ all, nodes, reason }: Targets): boolean {
  return (all || nodes.length > 0) && reason.trim().length >= REASON_LENGTH_MIN;
}

/** Which nodes, and why; shared by everything that changes who decides. */
export function TargetFields({ value, onChange, problem }: { value: Targets; onChange: (value: Targets) => void; problem: ApiProblem | null }) {
  const { data: nodes } = useNodes();
  const names = (nodes ?? []).map((node) => node.metadata.name);
  return (
    <>
      <MultiSelect
        label="Nodes"
        placeholder={value.nodes.length === 0 ? "Choose nodes" : ""}
        data={names}
        value={value.all ? [] : value.nodes}
        onChange={(chosen) => onChange({ ...value, nodes: chosen })}
        disabled={value.all}
        searchable
        comboboxProps={{ withinPortal: true }}
        error={problem?.about("nodes")}
      />
      <Checkbox label={`All ${names.length} nodes`} checked={value.all} onChange={(event) => onChange({ ...value, all: event.currentTarget.checked })} />
      <TextInput
        data-autofocus
        label="Reason"
        placeholder="For the audit log"
        maxLength={200}
        value={value.reason}
        onChange={(event) => onChange({ ...value, reason: event.currentTarget.value })}
        error={problem?.about("reason")}
      />
    </>
  );
}
