import { useEffect, useRef } from "react";
import { type KeyMemory, readKey } from "./shortcuts";

export type ShortcutHandlers = Record<string, () => void>;

const STORAGE = "helm-shortcuts";

/** Single-letter keys can be switched off (WCAG 2.1.4). */
export function shortcutsEnabled(): boolean {
  return localStorage.getItem(STORAGE) !== "off";
}

export function setShortcutsEnabled(enabled: boolean): void {
  localStorage.setItem(STORAGE, enabled ? "on" : "off");
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** A button answers to Space itself. */
function isPressable(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.closest("button, a, [role=button], [role=slider]") !== null;
}

/** Listens while mounted; typing in a field and keys with Ctrl, Alt or Meta are left alone. */
export function useShortcuts(handlers: ShortcutHandlers): void {
  const latest = useRef(handlers);
  latest.current = handlers;
  useEffect(() => {
    let memory: KeyMemory = { prefix: null, atMs: 0 };
    function listen(event: KeyboardEvent): void {
      if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target) || !shortcutsEnabled()) return;
      if (document.querySelector("[role=dialog]") !== null) return;
      if (event.key === " " && isPressable(event.target)) return;
      const result = readKey(memory, event.key, event.timeStamp);
      memory = result.memory;
      const act = result.hit === null ? undefined : latest.current[result.hit];
      if (!act) return;
      event.preventDefault();
      act();
    }
    document.addEventListener("keydown", listen);
    return () => document.removeEventListener("keydown", listen);
  }, []);
}
