import { Menu, useComputedColorScheme, useMantineColorScheme } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Keyboard, LogOut, Moon, Search, Sun } from "lucide-react";
import { type ReactNode, Suspense, useState } from "react";
import { NavLink, Outlet, useLocation, useNavigate } from "react-router";
import { api } from "../api/client";
import { keys } from "../api/keys";
import { useFleet, useMe } from "../api/queries";
import { Keys } from "../components/Keys";
import { clock, day } from "../format/time";
import { useLiveStore } from "../live/LiveProvider";
import { DESTINATIONS } from "./destinations";
import { LiveIndicator } from "./LiveIndicator";
import { Logo } from "./Logo";
import { RangePicker } from "./RangePicker";
import { nextRange, useRange } from "./ranges";
import { SearchDialog } from "./SearchDialog";
import { ShortcutsDialog } from "./ShortcutsDialog";
import { StreamBanner } from "./StreamBanner";
import { useNow } from "./useNow";
import { useShortcuts } from "./useShortcuts";
import s from "./Shell.module.css";

/** Pages with charts over time show the range; the others have no use for it. */
const RANGED = /^\/($|nodes\/)/;

export function Shell() {
  const [dialog, setDialog] = useState<"search" | "shortcuts" | null>(null);
  const [range, setRange] = useRange();
  const { pathname } = useLocation();
  const navigate = useNavigate();
  const live = useLiveStore();
  const toggleTheme = useToggleTheme();
  const ranged = RANGED.test(pathname);
  useShortcuts({
    "/": () => setDialog("search"),
    "?": () => setDialog("shortcuts"),
    t: toggleTheme,
    Space: live.togglePause,
    "[": () => ranged && setRange(nextRange(range, -1)),
    "]": () => ranged && setRange(nextRange(range, 1)),
    ...Object.fromEntries(DESTINATIONS.map(({ key, path }) => [key, () => void navigate(path)])),
  });

  return (
    <div className={s.app}>
      <a className={s.skip} href="#main">
        Skip to content
      </a>
      <Navigation onShortcuts={() => setDialog("shortcuts")} />
      <TopBar
        onSearch={() => setDialog("search")}
        onTheme={toggleTheme}
        range={ranged ? <RangePicker range={range} onChange={setRange} /> : null}
      />
      <main className={s.main} id="main" tabIndex={-1}>
        <StreamBanner />
        <Suspense fallback={null}>
          <Outlet />
        </Suspense>
      </main>
      <SearchDialog opened={dialog === "search"} onClose={() => setDialog(null)} />
      <ShortcutsDialog opened={dialog === "shortcuts"} onClose={() => setDialog(null)} />
    </div>
  );
}

function useToggleTheme(): () => void {
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("dark", { getInitialValueInEffect: false });
  return () => setColorScheme(scheme === "dark" ? "light" : "dark");
}

function Navigation({ onShortcuts }: { onShortcuts: () => void }) {
  const { data: me } = useMe();
  const visible = DESTINATIONS.filter((item) => me?.permissions.includes(item.permission));
  return (
    <nav className={s.nav} aria-label="Primary">
      <div className={s.logo}>
        <Logo />
      </div>
      {visible.map(({ label, path, icon: Icon }) => (
        <NavLink key={path} className={s.item} to={path} end={path === "/"}>
          <Icon size={18} strokeWidth={1.7} aria-hidden />
          <span>{label}</span>
        </NavLink>
      ))}
      <span className={s.spacer} />
      <button type="button" className={`${s.item} ${s.hideSmall}`} onClick={onShortcuts} title="Keyboard shortcuts (?)">
        <Keyboard size={18} strokeWidth={1.7} aria-hidden />
        <span>Keys</span>
      </button>
    </nav>
  );
}

function TopBar({ onSearch, onTheme, range }: { onSearch: () => void; onTheme: () => void; range: ReactNode }) {
  const { data: fleet } = useFleet();
  const scheme = useComputedColorScheme("dark", { getInitialValueInEffect: false });
  return (
    <header className={s.top}>
      <span className={s.fleet}>
        {fleet?.name ?? "HELM"} <span className={`dim small ${s.hideSmall}`}>{fleet ? countNodes(fleet.nodes_total) : ""}</span>
      </span>
      <button type="button" className={s.search} onClick={onSearch} aria-label="Search or jump to">
        <Search size={15} aria-hidden />
        <span className={s.hideMedium}>Search or jump to</span>
        <span className={s.hideSmall}>
          <Keys keys="/" />
        </span>
      </button>
      <span className={s.spacer} style={{ flex: 1 }} />
      <LiveIndicator />
      <span className={s.hideSmall}>{range}</span>
      <Clock />
      <button type="button" className={s.search} onClick={onTheme} aria-label="Switch theme" title="Light or dark (t)">
        {scheme === "dark" ? <Sun size={16} aria-hidden /> : <Moon size={16} aria-hidden />}
      </button>
      <UserMenu />
    </header>
  );
}

function countNodes(total: number): string {
  return total === 1 ? "1 node" : `${total.toLocaleString("en-US")} nodes`;
}

function Clock() {
  const now = new Date(useNow());
  return (
    <span className={`dim small nowrap ${s.hideMedium}`} title="All times are UTC">
      {day(now)} <span className="quiet">{clock(now)}</span> UTC
    </span>
  );
}

function UserMenu() {
  const client = useQueryClient();
  const { data: me } = useMe();
  const signOut = useMutation({
    mutationFn: () => api.DELETE("/api/v1/session/"),
    onSettled: async () => {
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== keys.me[0] });
      await client.resetQueries({ queryKey: keys.me });
    },
  });
  if (!me) return null;
  return (
    <Menu position="bottom-end" width={180}>
      <Menu.Target>
        <button type="button" className={s.user} aria-label={`User menu: ${me.username}, ${me.role || "no role"}`}>
          <span className={s.avatar}>{me.username.slice(0, 2).toUpperCase()}</span>
          <span className={s.hideMedium}>
            {me.username} <span className="dim">{me.role || "no role"}</span>
          </span>
        </button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          {me.username}, {me.role || "no role"}
        </Menu.Label>
        <Menu.Item leftSection={<LogOut size={14} />} onClick={() => signOut.mutate()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
