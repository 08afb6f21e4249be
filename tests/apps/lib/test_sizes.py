"""Amounts of memory as people write and read them."""

import pytest

from apps.lib.sizes import bytes_text, parse_bytes


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("512MiB", 512 << 20),
        ("40GiB", 40 << 30),
        ("1.5 GiB", 3 << 29),
        ("80GB", 80 * 10**9),
        ("64kib", 1 << 16),
        ("67108864", 67_108_864),
        ("67108864B", 67_108_864),
        ("0", 0),
    ],
)
def test_sizes_are_read(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "MiB", "512M", "half", "-1", "1e9", "0.5", "1.5B", "nan", "5 5", "5 parsecs", "\u0665MiB", "9" * 21])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (64 << 20, "64.0 MiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes_are_told_in_binary_units(amount: int, text: str) -> None:
    assert bytes_text(amount) == text
