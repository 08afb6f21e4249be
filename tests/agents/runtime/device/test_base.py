import msgspec
import pytest
import torch

from agents.profiles import load_profile
from agents.runtime.device.base import Arena, DeviceOutOfMemory, refuse_out_of_memory
from agents.wire.errors import WireError

PROFILE = msgspec.structs.replace(load_profile("cpu-demo"), pool_bytes=16 * 65_536)


def test_both_views_lie_over_the_same_bytes_page_by_page() -> None:
    arena = Arena(PROFILE, torch.device("cpu"))
    assert arena.rows.shape == (16 * 256, 64)
    assert arena.pages.shape == (16, 64 * 256)
    arena.rows[3 * 256 : 4 * 256] = 7.0
    assert bool((arena.pages[3] == 7.0).all())
    assert float(arena.pages.sum()) == 7.0 * 65_536 / 4
    arena.pages[15, -1] = 5.0
    assert float(arena.rows[-1, -1]) == 5.0


def test_a_page_that_is_no_whole_number_of_tokens_keeps_its_rest_unused() -> None:
    profile = msgspec.structs.replace(PROFILE, kv_token_bytes=3 * 1024)
    arena = Arena(profile, torch.device("cpu"))
    assert arena.block_tokens == 21
    assert arena.pages.shape == (16, 21 * 768)
    arena.pages[1] = 1.0
    assert float(arena.rows[256:512].sum()) == 21 * 768
    assert float(arena.rows.sum()) == 21 * 768


def test_an_arena_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(DeviceOutOfMemory, match=f"device memory is exhausted: an arena of {2**60} bytes") as caught:
        Arena(msgspec.structs.replace(PROFILE, pool_bytes=2**60), torch.device("cpu"))
    assert isinstance(caught.value, WireError)
    assert caught.value.status == 429


def test_every_allocator_failure_becomes_the_refusal() -> None:
    for failure in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory")):
        with pytest.raises(DeviceOutOfMemory, match="device memory is exhausted: a test"), refuse_out_of_memory("a test"):
            raise failure
    with pytest.raises(DeviceOutOfMemory), refuse_out_of_memory("a test"):
        torch.empty(2**60)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes do not match"), refuse_out_of_memory("a test"):
        raise RuntimeError("shapes do not match")
    with pytest.raises(ValueError, match="bad"), refuse_out_of_memory("a test"):
        raise ValueError("bad")
