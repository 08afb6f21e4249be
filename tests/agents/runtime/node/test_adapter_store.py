from pathlib import Path

import msgspec
import pytest

from agents.runtime.adapter_store import SAVE_PERIOD_NS, AdapterStore
from tests.apps.frames import decision


class Adapter:
    def __init__(self, learned: dict[str, float]) -> None:
        self.learned = learned

    def restore(self, state: dict[str, float]) -> bool:
        if self.learned:
            self.learned = state
        return bool(self.learned)


def store(path: Path, adapter: Adapter) -> AdapterStore:
    return AdapterStore(path, lambda: adapter.learned, adapter.restore)


def test_what_was_learned_comes_back_after_a_restart(tmp_path: Path) -> None:
    store(tmp_path / "adapter.json", Adapter({"version": 1.0, "offset": 0.02})).save()
    reborn = Adapter({"version": 1.0, "offset": 0.0})
    store(tmp_path / "adapter.json", reborn).load()
    assert reborn.learned == {"version": 1.0, "offset": 0.02}


def test_it_is_saved_once_a_minute(tmp_path: Path) -> None:
    path, adapter = tmp_path / "adapter.json", Adapter({"offset": 0.01})
    kept = store(path, adapter)
    first = decision()
    kept.noted(first)
    adapter.learned = {"offset": 0.02}
    kept.noted(msgspec.structs.replace(first, at_unix_ns=first.at_unix_ns + SAVE_PERIOD_NS - 1))
    assert msgspec.json.decode(path.read_bytes()) == {"offset": 0.01}
    kept.noted(msgspec.structs.replace(first, at_unix_ns=first.at_unix_ns + SAVE_PERIOD_NS))
    assert msgspec.json.decode(path.read_bytes()) == {"offset": 0.02}


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"offset": "far"}'])
def test_a_damaged_file_is_left_out(tmp_path: Path, content: bytes) -> None:
    path, adapter = tmp_path / "adapter.json", Adapter({"offset": 0.0})
    path.write_bytes(content)
    store(path, adapter).load()
    assert adapter.learned == {"offset": 0.0}


def test_what_nobody_can_take_yet_stays_until_somebody_learns_here(tmp_path: Path) -> None:
    path = tmp_path / "adapter.json"
    store(path, Adapter({"offset": 0.02})).save()
    late = Adapter({})
    kept = store(path, late)
    kept.load()
    kept.save()
    late.learned = {"offset": 0.0}  # a policy came, and layers with it
    kept.offer()
    assert late.learned == {"offset": 0.02}
    late.learned = {"offset": 0.03}
    kept.offer()  # the next one goes on from there
    assert late.learned == {"offset": 0.03}


def test_a_controller_without_an_adapter_leaves_no_file(tmp_path: Path) -> None:
    store(tmp_path / "adapter.json", Adapter({})).save()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store(tmp_path / "file" / "adapter.json", Adapter({"offset": 0.0})).save()
