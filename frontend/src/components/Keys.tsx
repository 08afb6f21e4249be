import s from "./Keys.module.css";

/** "g f" as two key caps. */
export function Keys({ keys }: { keys: string }) {
  return (
    <span className={s.keys}>
      {keys.split(" ").map((key) => (
        <kbd key={key}>{key}</kbd>
      ))}
    </span>
  );
}
