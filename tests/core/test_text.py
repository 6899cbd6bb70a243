"""Hostile text never reaches a terminal as it came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.text import clean


def test_ordinary_text_stays_as_it_is() -> None:
    for s in ("", "blastp -db nr", "Müller", "计算", "a\\b", "[bold]x[/bold]"):
        assert clean(s, 64) == s


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("\x1b]52;c;eA==\x07", "\\x1b]52;c;eA==\\x07"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x9b2J", "\\x9b2J"),
        ("\x7f", "\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("a\u200bb", "a\\u200bb"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028", "\\u2028"),
    ],
)
def test_controls_become_visible(raw: str, shown: str) -> None:
    assert clean(raw, 64) == shown


def test_at_most_four_combining_marks_in_a_row() -> None:
    assert clean("a" + "\u0301" * 50 + "b", 99) == "a" + "\u0301" * 4 + "b"
    assert clean("e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301", 99) == "e\u0301" * 6


def test_long_text_is_cut_with_a_sign() -> None:
    assert clean("x" * 1_000_000, 10) == "x" * 9 + "…"
    assert clean("x" * 10, 10) == "x" * 10
    assert clean("\n\n\n", 10) == "\\x0a\\x0a\\…"


@given(st.text(st.characters()), st.integers(1, 200))
def test_whatever_comes_the_result_is_printable_and_short(s: str, limit: int) -> None:
    shown = clean(s, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    shown.encode()
