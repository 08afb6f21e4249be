"""The console's bundle, built when its sources are newer: the tests look at what the product serves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FRONTEND = Path(__file__).resolve().parents[2] / "frontend"
SOURCES = ("src", "public", "index.html", "package-lock.json", "vite.config.ts", "openapi.json")
MISSING = "no npm for the console: run `make setup`, which brings Node where the machine has none."


def is_stale() -> bool:
    """Whether a source is newer than the bundle."""
    index = FRONTEND / "dist" / "index.html"
    if not index.is_file():
        return True
    files = (file for name in SOURCES for file in ([FRONTEND / name] if (FRONTEND / name).is_file() else (FRONTEND / name).rglob("*")))
    return any(file.stat().st_mtime > index.stat().st_mtime for file in files if file.is_file() and file.name != "schema.ts")


def build() -> None:
    """Install what the lock file names, then build; raises with npm's own words."""
    # A virtual environment may bring its own Node beside its Python.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    npm = shutil.which("npm", path=os.environ.get("PATH")) or shutil.which("npm", path=path)
    if npm is None:
        raise RuntimeError(MISSING)
    commands = [["run", "build"]] if (FRONTEND / "node_modules").is_dir() else [["ci"], ["run", "build"]]
    for arguments in commands:
        done = subprocess.run([npm, *arguments], cwd=FRONTEND, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"npm {' '.join(arguments)} failed:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
