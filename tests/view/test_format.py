import pytest

from omview import format as fmt

MIB, GIB = 1024**2, 1024**3


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "?"), (0.0, "0.00"), (2.314, "2.31"), (9.994, "9.99"), (9.996, "10.0"), (12.34, "12.3"), (123.4, "123")],
)
def test_load_takes_at_most_four_cells(value: float | None, text: str) -> None:
    assert fmt.load(value) == text
    assert len(text) <= 4


@pytest.mark.parametrize(("value", "text"), [(8.0, "8"), (0.669922, "0.67"), (2.5, "2.5"), (128.0, "128")])
def test_cores_are_short(value: float, text: str) -> None:
    assert fmt.cores(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "?"), (0, "·"), (0.04, "·"), (0.1, "<1"), (0.99, "<1"), (1, "1"), (398.4, "398")]
)
def test_cpu_does_not_flicker_between_tenths(value: float | None, text: str) -> None:
    assert fmt.cpu(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"), (0, "·"), (512 * 1024, "512K"), (8 * MIB, "8M"), (210 * MIB, "210M"), (999 * MIB, "999M"),
        (1000 * MIB, "1.0G"), (int(1.2 * GIB), "1.2G"), (31 * GIB, "31G"), (2048 * GIB, "2.0T"), (1024**6, "1024P"),
    ],
)  # fmt: skip
def test_memory_in_tables_is_short(value: int | None, text: str) -> None:
    assert fmt.mem(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (84 * MIB, "84 MiB"),
        (int(1.2 * GIB), "1.2 GiB"),
        (5 * 1024, "5 KiB"),
        (1024**6, "1024 PiB"),
        (224 * GIB, "224 GiB"),
    ],
)
def test_memory_in_sentences_has_its_unit(value: int | None, text: str) -> None:
    assert fmt.size(value) == text


def test_plain_figures() -> None:
    assert (fmt.percent(None), fmt.percent(98.6)) == ("?", "99")
    assert (fmt.gib(None), fmt.gib(int(41.2 * GIB)), fmt.gib(224 * GIB)) == ("?", "41.2", "224")
    assert (fmt.rate(None), fmt.rate(0.4e6), fmt.rate(88e6)) == ("?", "0.4", "88")
    assert (fmt.freeze(None), fmt.freeze(0.423), fmt.freeze(11.2)) == ("?", "0.42 s", "11 s")
    assert (fmt.about(0.61), fmt.about(11.2)) == ("0.6 s", "11 s")
    assert (fmt.cpu_time(569), fmt.cpu_time(4171)) == ("9:29", "1:09:31")
    assert (fmt.count(1, "guest"), fmt.count(3, "guest"), fmt.count(2, "is", "are")) == ("1 guest", "3 guests", "2 are")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"), (-1, "0.0 s"), (0.4, "0.4 s"), (19.9, "19 s"), (59.9, "59 s"), (240, "4 min"), (6600, "1 h 50 m"),
        (7200, "2 h"), (41 * 86400 + 5, "41 d"),
    ],
)  # fmt: skip
def test_age_has_one_or_two_units(value: float | None, text: str) -> None:
    assert fmt.age(value) == text


def test_clock_is_local_and_24_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert fmt.clock(1_795_340_467.0) == "09:41:07"
    assert fmt.clock(1_795_340_467.0, seconds=False) == "09:41"


def test_cells_count_wide_characters_twice() -> None:
    assert (fmt.cells("abc"), fmt.cells("日本"), fmt.cells("é")) == (3, 4, 1)


def test_crop_never_splits_a_wide_character() -> None:
    assert fmt.crop("abc", 2) == "ab"
    assert fmt.crop("abc", 0) == ""
    assert fmt.cells(fmt.crop("日本語", 3)) == 3
    assert fmt.crop("日本", 4) == "日本"


def test_cut_marks_what_is_missing() -> None:
    assert fmt.cut("a sentence", 20) == "a sentence"
    assert fmt.cut("a sentence", 5) == "a se…"
    assert fmt.cut("a", 0) == ""


@pytest.mark.parametrize("width", range(1, 60))
def test_cut_in_the_middle_fits_exactly(width: int) -> None:
    for text in (
        "ffmpeg -i /srv/video/talk-2026-11-20.mkv /srv/video/talk.mp4",
        "日本語のとても長いコマンドライン /tmp/出力",
    ):
        cut = fmt.cut_middle(text, width)
        assert fmt.cells(cut) == min(width, fmt.cells(text))


def test_cut_in_the_middle_keeps_head_and_tail() -> None:
    assert fmt.cut_middle("/a/very/long/path/to/file.txt", 12) == "/a/ver…e.txt"
    assert fmt.cut_middle("short", 12) == "short"


def test_wrap_breaks_long_words_and_cuts_the_last_line() -> None:
    assert fmt.wrap("one two three four", 9, 5) == ["one two", "three", "four"]
    assert fmt.wrap("one two three four", 9, 2) == ["one two", "three fo…"]
    assert fmt.wrap("abcdefghij kl", 4, 5) == ["abcd", "efgh", "ij", "kl"]
    assert fmt.wrap("anything", 0, 3) == []
    assert fmt.wrap("", 9, 3) == []
