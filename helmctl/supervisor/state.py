"""The state folder: everything a running HELM writes, in one place that `make clean` removes."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
OWNER_ONLY = 0o700


class StateFolder(NamedTuple):
    """Paths inside `.helm`; making the object touches nothing."""

    root: Path

    @property
    def fleet_file(self) -> Path:
        """Addresses and key of the fleet (`agents.wire.messages.FleetFile`), mode 0600."""
        return self.root / "fleet.json"

    @property
    def load_file(self) -> Path:
        """What the load generator last said of itself (`agents.runtime.load.report.LoadStatus`)."""
        return self.root / "load.json"

    @property
    def models(self) -> Path:
        """Imported versions of the model (`agents.runtime.versions`)."""
        return self.root / "models"

    def credential(self, node_name: str) -> Path:
        """A node's own key to the control plane, written by the node when it enrols."""
        return self.root / "credentials" / node_name

    def enrolment(self, node_name: str) -> Path:
        """The one-time token a node enrols with, written by `manage.py seed_local`."""
        return self.root / "enrol" / node_name

    @property
    def logs(self) -> Path:
        """One log file per process, and one older one."""
        return self.root / "logs"

    @property
    def lock_file(self) -> Path:
        """Held by the one running supervisor; its text is that supervisor's pid."""
        return self.root / "supervisor.pid"

    @property
    def children_file(self) -> Path:
        """The processes that were started, for the case that their supervisor is killed."""
        return self.root / "children.json"

    @property
    def caches(self) -> Path:
        """Caches of libraries that would otherwise write into the home folder."""
        return self.root / "cache"

    @property
    def kernels(self) -> Path:
        """Compiled kernels of exactly these sources.

        Numba checks only the file of the kernel that is called; a change in one that it calls would
        be served stale, so the folder's name is a digest of them all.
        """
        return self.root / "numba" / kernel_digest()

    def cache_env(self) -> dict[str, str]:
        """Environment that sends every cache into the state folder: a home may be read-only."""
        return {
            "NUMBA_CACHE_DIR": str(self.kernels),
            "XDG_CACHE_HOME": str(self.caches),
            "MPLCONFIGDIR": str(self.caches / "matplotlib"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.caches / "torch"),
            "npm_config_cache": str(self.caches / "npm"),
        }

    def adopt_caches(self) -> None:
        """Send this process's own caches into the state folder; call before Numba is imported."""
        os.environ.update(self.cache_env())

    def prepare(self) -> None:
        """Make the folders; the owner alone may read them, for they hold keys."""
        for folder in (self.root, self.logs, self.caches, self.kernels):
            folder.mkdir(mode=OWNER_ONLY, parents=True, exist_ok=True)

    def remove(self) -> None:
        """Delete all of it."""
        shutil.rmtree(self.root, ignore_errors=True)


@cache
def kernel_digest(agents: Path = ROOT / "agents") -> str:
    """Twelve hex digits over every source below `agents` that can hold a kernel."""
    digest = hashlib.sha256()
    for path in sorted(agents.rglob("*.py")):
        text = path.read_bytes()
        if b"kernel" in text:
            digest.update(str(path.relative_to(agents)).encode() + b"\0" + text)
    return digest.hexdigest()[:12]


def find_state_folder(environ: Mapping[str, str] | None = None) -> StateFolder:
    """`.helm` beside the code, or where HELM_STATE_DIR points."""
    named = (os.environ if environ is None else environ).get("HELM_STATE_DIR")
    return StateFolder(Path(named).expanduser().absolute() if named else ROOT / ".helm")
