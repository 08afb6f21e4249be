import type { ReactNode } from "react";
import s from "./Segments.module.css";

interface Option<Value extends string> {
  value: Value;
  label: ReactNode;
  title?: string;
}

interface Props<Value extends string> {
  label: string;
  value: Value;
  options: Option<Value>[];
  onChange: (value: Value) => void;
}

/** A row of buttons of which one is pressed. */
export function Segments<Value extends string>({ label, value, options, onChange }: Props<Value>) {
  return (
    <span className={s.segments} role="group" aria-label={label}>
      {options.map((option) => (
        <button key={option.value} type="button" aria-pressed={option.value === value} title={option.title} onClick={() => onChange(option.value)}>
          {option.label}
        </button>
      ))}
    </span>
  );
}
