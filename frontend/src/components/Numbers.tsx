import s from "./Numbers.module.css";

export interface NumberEntry {
  term: string;
  value: string;
  tone?: "worse" | "better";
}

/** Three numbers side by side: what a wish would bring. Read out when they change. */
export function Numbers({ entries }: { entries: [NumberEntry, NumberEntry, NumberEntry] }) {
  return (
    <dl className={s.numbers} aria-live="polite">
      {entries.map(({ term, value, tone }) => (
        <div key={term}>
          <dt>{term}</dt>
          <dd className={tone && s[tone]}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
