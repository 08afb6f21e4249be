export function Logo({ size = 26 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 26 26" role="img" aria-label="HELM">
      <rect x="2" y="4" width="10.5" height="18" rx="3.5" fill="var(--emb)" />
      <rect x="13.5" y="4" width="10.5" height="18" rx="3.5" fill="var(--kv)" />
      <rect x="11.7" y="1" width="2.6" height="24" rx="1.3" fill="var(--ink)" />
      <circle cx="13" cy="13" r="3.6" fill="var(--surface)" stroke="var(--ink)" strokeWidth="1.8" />
    </svg>
  );
}
