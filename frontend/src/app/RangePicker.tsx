import { Segments } from "../components/Segments";
import { type Range, RANGES } from "./ranges";

export function RangePicker({ range, onChange }: { range: Range; onChange: (range: Range) => void }) {
  return <Segments label="Time range" value={range} options={RANGES.map((value) => ({ value, label: value }))} onChange={onChange} />;
}
