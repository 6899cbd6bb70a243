from __future__ import annotations

import pytest
from rich.color import ColorSystem
from rich.style import Style
from textual.theme import BUILTIN_THEMES

from omview.theme import THEMES, Paint, needs_ascii, pick_theme, tokens_of
from omview.widgets import bars
from omview.widgets.canvas import change, spans
from omview.widgets.proctable import command_words
from omview.widgets.sheet import Sheet, to_ascii


def line(sheet: Sheet, y: int = 0) -> str:
    return "".join(sheet.chars[y])


def test_text_is_clipped_on_both_sides() -> None:
    sheet = Sheet(6, 1)
    assert sheet.put(4, 0, "abcd") == 8
    sheet.put(-2, 0, "xyz")
    sheet.put(0, 5, "below")
    sheet.put(9, 0, "beside")
    assert line(sheet) == "z   ab"


def test_wide_characters_take_two_cells() -> None:
    sheet = Sheet(6, 1)
    sheet.put(0, 0, "日本語x")
    assert sheet.chars[0] == ["日", "", "本", "", "語", ""]


def test_marks_share_a_cell_and_control_characters_never_reach_it() -> None:
    sheet = Sheet(8, 2)
    sheet.put(0, 0, "e\u0301日\u0301x")
    assert sheet.chars[0][:5] == ["e\u0301", "日\u0301", "", "x", " "]
    sheet.put(0, 1, "a\x1b[31mb\n")
    assert line(sheet, 1) == "a?[31mb?"


def test_later_hits_win() -> None:
    sheet = Sheet(10, 2)
    sheet.hit(0, 0, 10, 2, "node", 1)
    sheet.hit(2, 1, 3, 1, "job", "x")
    assert sheet.at(3, 1) == ("job", "x")
    assert sheet.at(3, 0) == ("node", 1)
    assert Sheet(2, 2).at(0, 0) is None


def test_a_title_drops_figures_that_do_not_fit() -> None:
    sheet = Sheet(30, 2)
    sheet.title(0, 0, 30, "Load", [("first ", "text"), ("2.31", "text")])
    sheet.title(0, 1, 12, "Load", [("too long to fit ", "text"), ("2.31", "text")])
    assert line(sheet) == "Load ────────────── first 2.31"
    assert line(sheet, 1) == "Load ── 2.31                  "


def test_paste_lays_one_sheet_on_another() -> None:
    small, large = Sheet(2, 1, "panel"), Sheet(5, 2)
    small.put(0, 0, "ab")
    small.hit(0, 0, 2, 1, "key", "x")
    large.paste(small, 1, 1)
    assert large.text() == "\n ab"
    assert large.at(2, 1) == ("key", "x")
    large.clear(1, 1, 2, 1, "bg")
    assert large.text() == "\n"


def test_ascii_is_as_wide_and_says_the_same() -> None:
    assert to_ascii("● ◆ ◇ ■ » ━╍─│┃ ▁▄█ → … 日é") == "* @ a # > =+-|| _-# > ~ ???"


@pytest.mark.parametrize(
    ("parts", "drawn"),
    [
        ((0.0, 0.0, 0.0), "    │     "),
        ((0.5, 0.25, 0.25), "━━╍─│     "),
        ((2.3, 0.0, 0.0), "━━━━┃━━━━ "),
        ((0.01, 0.0, 0.0), "─   │     "),
    ],
)
def test_a_load_bar_has_its_tick_at_one(parts: tuple[float, float, float], drawn: str) -> None:
    sheet = Sheet(10, 1)
    bars.load_bar(sheet, 0, 0, 10, parts, 2.5)
    assert line(sheet) == drawn


def test_a_stale_bar_is_hatched() -> None:
    sheet = Sheet(10, 1)
    bars.load_bar(sheet, 0, 0, 10, (0.5, 0.0, 0.0), 2.5, stale=True)
    assert line(sheet) == "░░  │     "


def test_a_share_bar_goes_in_half_steps() -> None:
    sheet = Sheet(4, 4)
    for row, share in enumerate((0.0, 0.01, 0.63, 2.0)):
        bars.share_bar(sheet, 0, row, 4, share, "mem")
    assert sheet.text() == "────\n╸───\n━━╸─\n━━━━"


def test_a_trend_never_fills_its_cell() -> None:
    assert bars.trend((0.0, 1.0, None, 9.0), 2.0) == "▁▄ ▇"


def test_the_area_says_where_one_is_and_never_hides_a_little() -> None:
    sheet = Sheet(4, 3)
    bars.area(sheet, 0, 0, 3, (0.01, 1.0, 1.5, 3.0), 3.0)
    assert sheet.text() == "   █\n┈┈▄█\n▁███"
    assert {spec.partition(":")[0] for spec in (sheet.specs[row][3] for row in range(3))} == {
        "calm",
        "busybar",
        "hotbar",
    }


def test_a_long_gap_at_the_end_says_lost() -> None:
    sheet = Sheet(12, 2)
    bars.area(sheet, 0, 0, 2, (1.0, 1.0, *(None,) * 10), 2.0, "mem")
    assert "lost" in sheet.text()


def test_the_plain_bar_of_the_tiny_view_is_one_colour() -> None:
    sheet = Sheet(10, 2)
    bars.plain_bar(sheet, 0, 0, 10, 2.3, 2.5)
    bars.plain_bar(sheet, 0, 1, 10, 0.01, 2.5)
    assert sheet.text() == "━━━━┃━━━━\n━   │"
    assert (sheet.specs[0][0], sheet.specs[1][0]) == ("hot", "calm")


def test_an_area_without_values_is_empty() -> None:
    sheet = Sheet(8, 2)
    bars.area(sheet, 0, 0, 2, (None,) * 8, 2.0, "mem")
    assert sheet.text() == "\n"
    assert bars.level(None) == "muted"


def test_scales_are_round_and_put_one_on_an_edge() -> None:
    assert bars.nice_top((0.5, None), 3.0) == 3.0
    assert bars.nice_top((4.1,), 3.0) == 5.0
    assert bars.nice_top((11.0,), 3.0) == 15.0
    assert bars.nice_top((0.00045,), 0.0001) == pytest.approx(0.0005)
    assert bars.fit_top(3.0, 10) == pytest.approx(10 / 3)
    assert bars.fit_top(30.0, 9) == 30.0


def test_levels_are_judged_as_they_are_written() -> None:
    assert [bars.level(load) for load in (None, 1.0, 1.004, 1.01, 2.01)] == ["muted", "text", "text", "busy", "hot"]


def test_only_what_differs_is_drawn_again() -> None:
    old, new = Sheet(60, 1), Sheet(60, 1)
    new.put(3, 0, "ab")
    new.put(40, 0, "c")
    assert spans(old, new, 0) == [(3, 5), (40, 41)]
    new.put(10, 0, "d")
    assert spans(old, new, 0) == [(3, 11), (40, 41)]
    assert spans(old, old, 0) == []


def test_a_row_with_wide_characters_is_drawn_whole() -> None:
    old, new = Sheet(20, 1), Sheet(20, 1)
    new.put(3, 0, "日")
    assert spans(old, new, 0) == [(0, 20)]


def test_the_pen_says_only_what_changes() -> None:
    red, blue = Style.parse("bold #ff0000 on #000000"), Style.parse("#0000ff on #000000")
    assert change(None, red, ColorSystem.TRUECOLOR) == "\x1b[1;38;2;255;0;0;48;2;0;0;0m"
    assert change(red, blue, ColorSystem.TRUECOLOR) == "\x1b[22;38;2;0;0;255m"
    assert change(red, red, ColorSystem.TRUECOLOR) == ""
    assert change(Style.parse("dim"), Style.parse("bold"), ColorSystem.STANDARD) == "\x1b[22;1m"
    assert change(Style.parse("bold dim"), Style.parse("bold"), ColorSystem.STANDARD) == "\x1b[22;1m"
    assert change(red, Style.null(), ColorSystem.TRUECOLOR) == "\x1b[22;39;49m"


@pytest.mark.parametrize("theme", [*THEMES, *BUILTIN_THEMES.values()], ids=lambda theme: theme.name)
def test_every_theme_has_every_colour(theme) -> None:  # type: ignore[no-untyped-def]
    paint = Paint(theme)
    for spec in ("text", "busy b", "calm:1/3", "muted i", "accent u", "fill-calm"):
        for ground in ("", "bg", "panel", "selrow", "sel", "accent"):
            assert paint(spec, ground).color is not None
    assert len(paint.rgb("own")) == 3
    if not theme.ansi:
        assert len(tokens_of(theme)) > 20


def test_without_colour_only_attributes_remain() -> None:
    sixteen = next(theme for theme in THEMES if theme.ansi)
    paint = Paint(sixteen, no_color=True)
    for spec, ground in (("busy", "bg"), ("faint", "bg"), ("text", "selrow"), ("own", "accent")):
        style = paint(spec, ground)
        assert style.color is None
        assert style.bgcolor is None
    assert paint("busy", "bg").bold
    assert paint("faint", "bg").dim
    assert paint("text", "selrow").reverse


def test_on_the_cursor_row_of_sixteen_colours_nothing_is_red_on_blue() -> None:
    sixteen = next(theme for theme in THEMES if theme.ansi)
    hot = Paint(sixteen)("hot b", "selrow")
    assert hot.color is not None
    assert hot.color.number == 15


@pytest.mark.parametrize(
    ("environ", "theme", "ascii_signs"),
    [
        ({"TERM": "xterm-256color", "LANG": "de_DE.UTF-8"}, "om-night", False),
        ({"TERM": "xterm", "COLORTERM": "truecolor", "LC_ALL": "C.utf8"}, "om-night", False),
        ({"TERM": "linux", "LANG": "C.UTF-8"}, "om-16", True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1", "LANG": "C"}, "om-16", True),
        ({}, "om-16", True),
    ],
)
def test_the_terminal_decides(environ: dict[str, str], theme: str, ascii_signs: bool) -> None:
    assert pick_theme(environ) == theme
    assert needs_ascii(environ) is ascii_signs


@pytest.mark.parametrize(
    ("program", "arguments", "room", "words"),
    [
        ("python3", "pi.py", 20, ("python3", " pi.py")),
        ("/opt/venv/bin/omview", "serve", 24, ("omview", " serve")),
        ("/sbin/init", "", 24, ("/sbin/init", "")),
        ("/opt/venv/bin/python", "-I -S /opt/omview/jobs/shim.py", 24, ("python", " -I -S …bs/shim.py")),
        ("a-program-with-a-long-name", "x", 11, ("a-prog", "…me x")),
    ],
)
def test_a_long_command_keeps_the_name_of_its_program(
    program: str, arguments: str, room: int, words: tuple[str, str]
) -> None:
    assert command_words(program, arguments, room) == words
