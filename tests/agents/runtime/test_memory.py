"""What a daemon gives back after its start: only what is a clean copy of a file."""

from agents.runtime.memory import Mapping, code_of, give_back

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


def test_kernels_compile_as_before_when_the_code_was_dropped() -> None:
    import numba

    give_back()
    doubled = numba.njit(lambda value: value * 2)
    assert doubled(21) == 42
