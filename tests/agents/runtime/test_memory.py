"""What a daemon gives back after its start: only what is a clean copy of a file."""

import asyncio

import pytest

from agents.runtime.memory import Mapping, code_of, give_back, keep_small

MAPS = """\
7f0000000000-7f0000001000 r--p 00000000 fe:00 1    /x/llvmlite/binding/libllvmlite.so
7f0000001000-7f0000009000 r-xp 00001000 fe:00 1    /x/llvmlite/binding/libllvmlite.so
7f0000009000-7f000000a000 rw-p 00009000 fe:00 1    /x/llvmlite/binding/libllvmlite.so
7f0000010000-7f0000020000 r-xp 00000000 fe:00 2    /x/a folder/libother.so
7f0000020000-7f0000030000 rwxp 00000000 00:00 0
""".splitlines()


def test_only_code_of_the_named_library_is_dropped() -> None:
    assert list(code_of("libllvmlite.so", MAPS)) == [Mapping(0x7F0000001000, 0x8000)]
    assert list(code_of("libother.so", MAPS)) == [Mapping(0x7F0000010000, 0x10000)]
    assert list(code_of("libnone.so", MAPS)) == []


async def test_memory_is_given_back_once_in_every_silence() -> None:
    requests, given = iter([1, 2, 2, 2, 2, 2, 2, 3, 3, 3]), []
    seen = []

    def served() -> int:
        seen.append(next(requests))
        return seen[-1]

    with pytest.raises(RuntimeError):  # the requests are at an end
        await asyncio.wait_for(keep_small(served, lambda: given.append(seen[-1]), silence_seconds=0.0), 30.0)
    assert given == [2, 3]


def test_kernels_compile_as_before_when_the_code_was_dropped() -> None:
    import numba

    give_back()
    doubled = numba.njit(lambda value: value * 2)
    assert doubled(21) == 42
