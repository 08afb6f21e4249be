import { BrainCircuit, Cpu, FlaskConical, KeyRound, LayoutGrid, List, type LucideIcon, Route } from "lucide-react";

interface Destination {
  label: string;
  path: string;
  icon: LucideIcon;
  /** Who sees it; hidden, not disabled, for everybody else. */
  permission: string;
  key: string;
}

/** Pages that exist. A page that does not exist yet is not in here, so nothing links to it. */
export const DESTINATIONS: Destination[] = [
  { label: "Fleet", path: "/", icon: LayoutGrid, permission: "fleet.read", key: "g f" },
  { label: "Nodes", path: "/nodes", icon: Cpu, permission: "fleet.read", key: "g n" },
  { label: "Policies", path: "/policies", icon: BrainCircuit, permission: "fleet.read", key: "g p" },
  { label: "What-if", path: "/whatifs", icon: FlaskConical, permission: "fleet.read", key: "g w" },
  { label: "Routing", path: "/routing", icon: Route, permission: "fleet.read", key: "g r" },
  { label: "Audit", path: "/audit", icon: List, permission: "audit.read", key: "g a" },
  { label: "Tokens", path: "/tokens", icon: KeyRound, permission: "token.own", key: "g k" },
];
