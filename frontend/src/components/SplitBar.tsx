import { percentWithSign } from "../format/number";
import s from "./SplitBar.module.css";

/** One pool, two caches: EMB on the left, KV on the right. Grey when the split is not known. */
export function SplitBar({ embRatio, height = 6 }: { embRatio: number | null | undefined; height?: number }) {
  if (embRatio === null || embRatio === undefined) {
    return <div className={s.bar} style={{ height }} role="img" aria-label="Split not known" />;
  }
  const label = `EMB ${percentWithSign(embRatio, 0)}, KV ${percentWithSign(1 - embRatio, 0)}`;
  return (
    <div className={s.bar} style={{ height }} role="img" aria-label={label}>
      <i className={s.emb} style={{ width: `${(embRatio * 100).toFixed(2)}%` }} />
      <i className={s.kv} />
    </div>
  );
}
