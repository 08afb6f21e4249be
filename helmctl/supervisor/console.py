"""Builds the console once: with the machine's Node where it is new enough, else with the one a Python package brings."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from helmctl.supervisor.refusal import Refusal
from helmctl.supervisor.state import ROOT, StateFolder

FRONTEND = ROOT / "frontend"
MADE = frozenset({"node_modules", "dist"})  # folders that the build itself writes
MADE_FILES = frozenset({"src/api/schema.ts"})
OLDEST_20, OLDEST = (20, 19), (22, 12)  # what Vite 8 runs on: ^20.19 or >= 22.12
OUTPUT_LINES = 15


def build_console(state: StateFolder, say: Callable[[str], None], environ: Mapping[str, str], folder: Path = FRONTEND) -> bool:
    """Build unless the sources are those of the last build; whether anything was built. `Refusal` when it fails."""
    stamp, key = folder / "dist/.helm-stamp", source_key(folder)
    if _reads(stamp) == key and (folder / "dist/index.html").is_file():
        return False
    bin_folder = find_node(environ)
    env = {**environ, **state.cache_env(), "PATH": os.pathsep.join([str(bin_folder), environ.get("PATH", os.defpath)])}
    packages, wanted = folder / "node_modules/.helm-stamp", _digest([folder / "package.json", folder / "package-lock.json"], folder)
    if _reads(packages) != wanted:
        say("Installing the console's packages")
        _run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], folder, env)
        packages.write_text(wanted)
    say("Building the console")
    _run(["npm", "run", "build", "--silent"], folder, env)
    stamp.write_text(key)
    return True


def source_key(folder: Path) -> str:
    """Changes with any file of the console that is written by hand."""
    paths = [path for path in sorted(folder.rglob("*")) if _is_source(path.relative_to(folder)) and path.is_file()]
    return _digest(paths, folder)


def find_node(environ: Mapping[str, str]) -> Path:
    """Folder of a `node` and `npm` that can build; `Refusal` when there is none."""
    for folder in (_folder_on_path(environ), Path(sys.executable).parent):
        if folder is not None and is_new_enough(_version(folder / "node")) and (folder / "npm").exists():
            return folder
    raise Refusal("the console needs Node 20.19 or 22.12 and newer with npm, and neither the machine nor .venv has one.")


def is_new_enough(version: tuple[int, int] | None) -> bool:
    """Whether Vite runs on it."""
    return version is not None and (version >= OLDEST or (version[0] == OLDEST_20[0] and version >= OLDEST_20))


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor of `v20.19.1`."""
    found = re.match(r"v(\d+)\.(\d+)\.", text.strip())
    return (int(found[1]), int(found[2])) if found else None


def _folder_on_path(environ: Mapping[str, str]) -> Path | None:
    found = shutil.which("node", path=environ.get("PATH"))
    return Path(found).parent if found else None


def _version(node: Path) -> tuple[int, int] | None:
    try:
        done = subprocess.run([str(node), "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stdout)


def _is_source(path: Path) -> bool:
    return not MADE & set(path.parts) and path.as_posix() not in MADE_FILES


def _digest(paths: Sequence[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)}|{len(content)}|".encode() + content)
    return digest.hexdigest()


def _reads(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _run(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-OUTPUT_LINES:]
        raise Refusal("\n".join([f"{' '.join(command)} failed in {folder}:", *(f"  {line}" for line in output)]))
