// Runs before the first paint, so that a dark-mode reader never sees a white flash.
(function () {
  var stored = null;
  try {
    stored = localStorage.getItem("helm-theme");
  } catch (_) {
    /* storage may be blocked; then the system setting decides */
  }
  var dark = stored === "dark" || (stored !== "light" && !matchMedia("(prefers-color-scheme: light)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
