"""A Chromium for the browser tests: `python -m helmctl.supervisor.browser` finds or installs one, or ends with exit code 2.

Order: HELM_BROWSER, the PATH, one that playwright already has, Debian's package when we are root.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLAYWRIGHT_PATTERNS = ("chromium-*/chrome-linux*/chrome", "chromium_headless_shell-*/chrome-linux*/headless_shell")
START_SECONDS_MAX = 30.0
MISSING = "no Chromium for the browser tests: install one (Debian: apt-get install chromium), or set HELM_BROWSER to its path."


def starts(path: str) -> bool:
    """Whether the program runs at all: Ubuntu's package is a stub that only tells you to install a snap."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=START_SECONDS_MAX, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def candidates(environ: Mapping[str, str]) -> Iterator[str]:
    """Paths to try, best first."""
    if environ.get("HELM_BROWSER"):
        yield environ["HELM_BROWSER"]
        return
    for name in NAMES:
        path = shutil.which(name, path=environ.get("PATH"))
        if path:
            yield path
    home = Path(environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path(environ.get("HOME") or "/") / ".cache/ms-playwright")
    for pattern in PLAYWRIGHT_PATTERNS:
        yield from sorted(map(str, home.glob(pattern)), reverse=True)


def find_browser(environ: Mapping[str, str] | None = None, works: Callable[[str], bool] = starts) -> str | None:
    """Path of a Chromium that starts, or None."""
    return next(filter(works, candidates(os.environ if environ is None else environ)), None)


def install_with_apt() -> bool:
    """Debian's package, when we may; whether it worked."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"])
    return all(subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False).returncode == 0 for command in commands)


def main() -> int:
    """Exit code 0 when the tests will find a browser."""
    if find_browser() or (install_with_apt() and find_browser()):
        return 0
    sys.stderr.write(f"HELM: {MISSING}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
