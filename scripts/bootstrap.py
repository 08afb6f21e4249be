"""Makes `.venv` ready: checks the machine, installs the pinned packages, compiles the kernels.

Standard library only, because it runs before anything is installed. Order of work: preflight (nothing is
touched when it refuses, exit code 2), virtual environment, installer, packages by the first way that
works, the `helmctl` command, kernels. Stamps make a second run do nothing and need no network.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlparse

GIB = 2**30
ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ((3, 11), (3, 12))  # the embedded Redis has wheels for these two only
DISK_BYTES_NEEDED = 3 * GIB  # about 2 GB of packages, their downloads, and room for a state folder
CUDA_DISK_BYTES_NEEDED = 10 * GIB  # NVIDIA's libraries unpack to about 6 GB
MEMORY_BYTES_NEEDED = 2 * GIB  # two nodes, router and load generator at about 0.3 GB each, and the system
UV_REQUIREMENT = "uv==0.13.9"
RUN_FILES = ("requirements.txt", "requirements-web.txt", "requirements-agent.txt", "requirements-worker.txt", "pyproject.toml")
DEV_FILES = ("requirements-dev.txt",)


class Refusal(Exception):
    """The machine cannot run HELM; the text is the one line that says why."""


class PipSettings(NamedTuple):
    """What pip was told about where packages come from; uv reads none of it by itself."""

    find_links: tuple[str, ...]
    index_url: str
    certificate: str


class Way(NamedTuple):
    """One way to install: the installer's environment on top of ours, and what to say before it starts."""

    label: str
    env: dict[str, str]
    notice: str = ""
    needed_bytes: int = 0


# --- preflight: pure checks, each returns the line to refuse with, or None -----------------------------


def python_problem(version: tuple[int, int]) -> str | None:
    """Only 3.11 and 3.12 are supported."""
    if version in PYTHONS:
        return None
    return f"needs Python 3.11 or 3.12, this is {version[0]}.{version[1]}. Name another one: make PYTHON=/path/to/python3.12"


def disk_problem(free_bytes: int, needed_bytes: int, folder: Path) -> str | None:
    """The packages must fit before the first of them is downloaded."""
    if free_bytes >= needed_bytes:
        return None
    return f"needs {needed_bytes / GIB:.0f} GiB of free disk for its packages, {folder} has {free_bytes / GIB:.1f} GiB."


def memory_problem(memory_bytes: int) -> str | None:
    """Two nodes are the smallest fleet."""
    if memory_bytes >= MEMORY_BYTES_NEEDED * 0.95:  # a "2 GB" machine shows a little less
        return None
    needed, given = MEMORY_BYTES_NEEDED / GIB, memory_bytes / GIB
    return f"needs {needed:.0f} GiB of memory for its smallest fleet, this machine gives it {given:.1f} GiB."


def writable_problem(folder: Path) -> str | None:
    """The virtual environment and the state folder live in the clone."""
    return None if os.access(folder, os.W_OK) else f"cannot write to {folder}: clone into a folder of your own."


def platform_notice(system: str, machine: str) -> str | None:
    """Other platforms are not refused: a Redis on the PATH makes most of them work."""
    if (system, machine) == ("Linux", "x86_64"):
        return None
    return f"HELM: {system} {machine} is untested (Linux x86_64 is); the embedded Redis needs a redis-server on the PATH here."


def memory_bytes_allowed() -> int:
    """Bytes this process may use: the machine's memory, or less where a container or a limit says so."""
    import resource

    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def preflight(root: Path, needed_bytes: int) -> None:
    """Raise `Refusal` with the first reason why this machine will not do."""
    import importlib.util

    problems = [
        python_problem(sys.version_info[:2]),
        None
        if importlib.util.find_spec("ensurepip")
        else f"{sys.executable} has no ensurepip: install the python3-venv package that belongs to it.",
        writable_problem(root),
        disk_problem(shutil.disk_usage(root).free, needed_bytes, root),
        memory_problem(memory_bytes_allowed()),
    ]
    for problem in problems:
        if problem:
            raise Refusal(problem)


# --- where packages come from --------------------------------------------------------------------------


def pip_settings(environ: Mapping[str, str], configured: Mapping[str, str]) -> PipSettings:
    """Merge the environment with pip's configuration files; the environment wins, as it does for pip."""

    def value(name: str) -> str:
        return environ.get("PIP_" + name.upper().replace("-", "_")) or configured.get(name, "")

    return PipSettings(tuple(value("find-links").split()), value("index-url"), value("cert"))


def parse_pip_config(listing: str) -> dict[str, str]:
    """Read `pip config list`: lines of `global.find-links='/wheels'`; later sections do not override global ones."""
    found: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, quoted = line.partition("=")
        section, _, name = key.strip().partition(".")
        if section in ("global", "install") and name:
            found[name] = quoted.strip().strip("'\"").replace("\\n", " ")
    return found


def has_torch_wheel(locations: Sequence[str], version: tuple[int, int], torch_version: str) -> bool:
    """Whether a folder among `locations` holds this interpreter's torch; an address elsewhere is trusted to."""
    tag = f"cp{version[0]}{version[1]}-"
    for location in locations:
        parsed = urlparse(location)
        if parsed.scheme in ("http", "https"):
            return True
        folder = Path(parsed.path if parsed.scheme == "file" else location)
        if folder.is_dir() and any(tag in wheel.name for wheel in folder.glob(f"torch-{torch_version}*.whl")):
            return True
    return False


def uv_base_env(settings: PipSettings, environ: Mapping[str, str]) -> dict[str, str]:
    """Tell uv what pip knows. Whatever the caller set for uv itself stays."""
    env: dict[str, str] = {}
    if settings.find_links and not environ.get("UV_FIND_LINKS"):
        env["UV_FIND_LINKS"] = ",".join(settings.find_links)  # pip separates by spaces, uv by commas
    if settings.index_url and not (environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL")):
        env["UV_DEFAULT_INDEX"] = settings.index_url
    if settings.certificate and not environ.get("SSL_CERT_FILE"):
        env["SSL_CERT_FILE"] = settings.certificate
    return env


def plain_notice(has_gpu: bool) -> str:
    """The size of what an unguided resolver takes, said before it is downloaded."""
    why = "a GPU is here" if has_gpu else "no smaller build of torch could be had"
    return f"HELM: {why}: installing torch with NVIDIA's libraries, about 2.5 GB to download and 6 GB on disk."


def ways_to_install(
    settings: PipSettings, environ: Mapping[str, str], *, has_gpu: bool, version: tuple[int, int], torch_version: str
) -> list[Way]:
    """Ways in the order they are tried: given find-links, else the CPU build, else whatever the index has."""
    base = uv_base_env(settings, environ)
    links = tuple(part for part in environ.get("UV_FIND_LINKS", "").split(",") if part) or settings.find_links
    ways = []
    if environ.get("UV_TORCH_BACKEND"):
        ways.append(Way(f"torch backend {environ['UV_TORCH_BACKEND']}, as UV_TORCH_BACKEND says", base))
    if links and has_torch_wheel(links, version, torch_version):
        ways.append(Way(f"find-links {' '.join(links)}", base))
    if not has_gpu:
        ways.append(Way("CPU build of torch", {**base, "UV_TORCH_BACKEND": "cpu"}))
    ways.append(Way("plain index", base, plain_notice(has_gpu), CUDA_DISK_BYTES_NEEDED))
    return ways


def pinned_version(requirements: str, package: str) -> str:
    """Version that `package` is pinned to in a requirements file's text."""
    for line in requirements.splitlines():
        name, _, rest = line.partition("==")
        if name.strip() == package:
            return rest.split("#")[0].split(";")[0].strip()
    raise Refusal(f"requirements pin no version of {package}.")


def has_gpu(environ: Mapping[str, str]) -> bool:
    """Whether NVIDIA's own tool sees a GPU that is not hidden from us."""
    tool = shutil.which("nvidia-smi")
    if tool is None or environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    found = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return found.returncode == 0 and "GPU" in found.stdout


# --- commands ------------------------------------------------------------------------------------------


def uv_command(python: Path, files: Sequence[str]) -> list[str]:
    """Install requirement files with uv into the environment of `python`."""
    return [str(python), "-m", "uv", "pip", "install", "--python", str(python), *requirement_flags(files)]


def pip_command(python: Path, files: Sequence[str]) -> list[str]:
    """The same with pip, which reads its own configuration."""
    return [str(python), "-m", "pip", "install", "--no-compile", *requirement_flags(files)]


def requirement_flags(files: Sequence[str]) -> list[str]:
    """`-r FILE` for each file."""
    return [flag for name in files for flag in ("-r", name)]


def project_command(python: Path, *, with_uv: bool) -> list[str]:
    """Put `helmctl` and our packages on the environment's path; the tree itself stays where it is.

    Compat mode writes the folder into a .pth file, so that a package added later needs no new install.
    """
    installer = ["-m", "uv", "pip", "install", "--python", str(python)] if with_uv else ["-m", "pip", "install"]
    return [str(python), *installer, "--no-deps", "--config-settings", "editable_mode=compat", "-e", "."]


# --- stamps --------------------------------------------------------------------------------------------


def install_key(root: Path, files: Sequence[str], version: Sequence[int]) -> str:
    """Changes when the packages, the interpreter or the place of the clone do (scripts hold absolute paths)."""
    digest = hashlib.sha256(f"{root}|{'.'.join(map(str, version))}".encode())
    for name in files:
        digest.update(name.encode() + (root / name).read_bytes())
    return digest.hexdigest()


def kernel_key(root: Path) -> str:
    """Changes when Numba would compile again: it looks at source files' time and size, and at the CPU."""
    digest = hashlib.sha256(f"{root}|{platform.processor()}|{platform.node()}".encode())
    for path in sorted((root / "agents").rglob("*.py")):
        stat = path.stat()
        digest.update(f"{path.relative_to(root)}|{stat.st_mtime_ns}|{stat.st_size}".encode())
    return digest.hexdigest()


def read_stamp(path: Path) -> dict[str, str]:
    """Stamps written by earlier runs; unreadable is the same as none."""
    try:
        stamp = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in stamp.items()} if isinstance(stamp, dict) else {}


def write_stamp(path: Path, **changes: str) -> None:
    """Add to the stamps; atomic, so that an interrupted run leaves none half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({**read_stamp(path), **changes}, indent=1))
    fresh.replace(path)


# --- the work ------------------------------------------------------------------------------------------


class Shell:
    """Runs commands, or prints them when it is a dry run."""

    def __init__(self, root: Path, environ: Mapping[str, str], *, dry_run: bool) -> None:
        self.root = root
        self.environ = dict(environ)
        self.dry_run = dry_run

    def run(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> bool:
        """Whether `command` succeeded; its output goes to the terminal."""
        extra = dict(env or {})
        if self.dry_run:
            print(" ".join([*(f"{key}={value}" for key, value in extra.items()), *command]))
            return True
        return subprocess.run(command, cwd=self.root, env={**self.environ, **extra}, check=False).returncode == 0


def state_folder(root: Path, environ: Mapping[str, str]) -> Path:
    """The same place as the supervisor's: `.helm` in the clone unless HELM_STATE_DIR says otherwise."""
    return Path(environ.get("HELM_STATE_DIR") or root / ".helm").absolute()


def cache_env(state: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Caches of the installers go into the state folder where the home folder is not writable."""
    if os.access(Path(environ.get("HOME") or "/nonexistent"), os.W_OK):
        return {}
    return {"UV_CACHE_DIR": str(state / "cache/uv"), "PIP_CACHE_DIR": str(state / "cache/pip")}


def make_venv(shell: Shell, venv: Path, *, moved: bool) -> None:
    """Create `.venv`; replace one of another Python, one that no longer runs, or one whose scripts point elsewhere."""
    if not moved and _serves(venv / "bin/python"):
        return
    base = getattr(sys, "_base_executable", sys.executable)  # we may be running from the very folder that goes
    if not shell.run([base, "-m", "venv", "--clear", str(venv)]):
        raise Refusal(f"{base} could not make {venv}; its message stands above.")


def _serves(python: Path) -> bool:
    """Whether `python` runs, has pip, and is the version that we are."""
    check = f"import sys, pip; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    return python.exists() and subprocess.run([str(python), "-c", check], capture_output=True, check=False).returncode == 0


def install_packages(shell: Shell, python: Path, files: Sequence[str], ways: Sequence[Way]) -> bool:
    """Install by the first way that works; return whether uv did it. `Refusal` when none does."""
    with_uv = shell.run([str(python), "-m", "pip", "install", "--quiet", UV_REQUIREMENT])
    if with_uv:
        for way in ways:
            print(f"HELM: installing packages ({way.label})", flush=True)
            _announce(way, shell.root)
            if shell.run(uv_command(python, files), way.env):
                return True
    else:
        print("HELM: uv cannot be had, installing packages with pip", flush=True)
        if not ways[0].label.startswith("find-links"):  # pip knows find-links too, but no CPU build by name
            _announce(ways[-1], shell.root)
    if not shell.run(pip_command(python, files)):
        raise Refusal("no way of installing the packages worked; is a package index reachable? The installers' messages stand above.")
    return False


def _announce(way: Way, root: Path) -> None:
    """Say what a way costs, and refuse it where its packages would fill the disk."""
    problem = disk_problem(shutil.disk_usage(root).free, way.needed_bytes, root)
    if problem:
        raise Refusal(problem)
    if way.notice:
        print(way.notice, flush=True)


def configured_pip(python: Path) -> dict[str, str]:
    """What pip's configuration files say; nothing when pip cannot be asked."""
    listing = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return parse_pip_config(listing.stdout)


def set_up(root: Path, environ: Mapping[str, str], *, dev: bool, dry_run: bool) -> None:
    """Bring `.venv` and the kernels up to date, doing nothing that was done before."""
    venv, state = root / ".venv", state_folder(root, environ)
    python = venv / "bin/python"
    shell = Shell(root, {**environ, **cache_env(state, environ)}, dry_run=dry_run)
    groups = {"run": ("requirements.txt", RUN_FILES), **({"dev": ("requirements-dev.txt", RUN_FILES + DEV_FILES)} if dev else {})}
    stamp = venv / "helm-stamp.json"
    keys = {name: install_key(root, files, sys.version_info[:2]) for name, (_, files) in groups.items()}
    done = {} if dry_run else read_stamp(stamp)
    missing = [name for name in groups if done.get(name) != keys[name]]
    if missing or not python.exists():
        moved = done.get("root", str(root)) != str(root)
        _install(shell, root, venv, [groups[name][0] for name in missing] or ["requirements.txt"], moved=moved)
        if not dry_run:
            write_stamp(stamp, root=str(root), **keys)
    _compile(shell, python, state, root)


def _install(shell: Shell, root: Path, venv: Path, files: Sequence[str], *, moved: bool) -> None:
    gpu = has_gpu(shell.environ)
    notice = platform_notice(platform.system(), platform.machine())
    if notice:
        print(notice, flush=True)
    python = venv / "bin/python"
    preflight(root, 0 if python.exists() else DISK_BYTES_NEEDED)
    make_venv(shell, venv, moved=moved)
    settings = pip_settings(shell.environ, configured_pip(python if python.exists() else Path(sys.executable)))
    torch_version = pinned_version((root / "requirements-agent.txt").read_text(), "torch")
    ways = ways_to_install(settings, shell.environ, has_gpu=gpu, version=sys.version_info[:2], torch_version=torch_version)
    with_uv = install_packages(shell, python, files, ways)
    if not shell.run(project_command(python, with_uv=with_uv), uv_base_env(settings, shell.environ) if with_uv else None):
        raise Refusal("could not install the helmctl command; the installer's message stands above.")


def _compile(shell: Shell, python: Path, state: Path, root: Path) -> None:
    stamp, key = state / "warm-stamp.json", kernel_key(root)
    if not shell.dry_run and read_stamp(stamp).get("kernels") == key:
        return
    if not shell.run([str(python), "-m", "helmctl.supervisor.warm"], {"HELM_STATE_DIR": str(state)}):
        raise Refusal("the kernels did not compile; the compiler's message stands above.")
    if not shell.dry_run:
        write_stamp(stamp, kernels=key)


def main(argv: Sequence[str], environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Exit code: 0 done, 2 refused."""
    parser = argparse.ArgumentParser(prog="bootstrap", description="Make .venv ready.")
    parser.add_argument("--dev", action="store_true", help="also what the tests need")
    parser.add_argument("--dry-run", action="store_true", help="print the commands instead of running them")
    arguments = parser.parse_args(argv)
    try:
        set_up(ROOT, environ, dev=arguments.dev, dry_run=arguments.dry_run)
    except Refusal as refusal:
        say(f"HELM: {refusal}")
        return 2
    except KeyboardInterrupt:
        say("HELM: interrupted; run it again to go on.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, lambda line: print(line, file=sys.stderr, flush=True)))
