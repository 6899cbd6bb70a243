"""The board's bytes: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

from math import inf, nan
from struct import pack_into

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore.errors import LocalProtocolError, RemoteProtocolError
from omcore.gossip import codec
from omcore.types import LoadSample

floats = st.floats(0, 1e4)
sizes = st.integers(0, 2**47)
counts = st.integers(0, 60000)
FIGURES = codec.pack_figures(LoadSample())
samples = st.builds(
    LoadSample,
    load=floats,
    load_own=floats,
    load_guest=floats,
    cpu_percent=st.floats(0, 100),
    wait_percent=st.none() | st.floats(0, 100),
    mem_used_bytes=sizes,
    mem_total_bytes=sizes,
    cores=st.floats(0.1, 2000),
    speed=st.floats(0.1, 100),
    uptime_s=st.floats(0, 1e9),
    net_in_bps=st.floats(0, 1e12),
    net_out_bps=st.floats(0, 1e12),
    jobs_here=counts,
    jobs_guest=counts,
    jobs_away=counts,
)


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-3, abs=1e-4)


def test_an_entry_has_48_bytes() -> None:
    assert codec.ENTRY_SIZE == 48


@settings(deadline=None)
@given(number=st.integers(0, 2**32 - 1), serial=st.integers(0, 65535), sample=samples)
def test_a_sample_survives_the_wire(number: int, serial: int, sample: LoadSample) -> None:
    data = codec.pack_window([0], [number], [serial], [codec.pack_figures(sample)], 0, False)
    window = codec.unpack_message(data, number)
    assert window is not None
    assert (window.numbers, window.serials) == ((number,), (serial,))
    got = codec.unpack_figures(window.figures)
    for field in ("load", "load_own", "load_guest", "cores", "speed", "net_in_bps", "net_out_bps"):
        assert getattr(got, field) == near(getattr(sample, field)), field
    assert got.cpu_percent == pytest.approx(sample.cpu_percent, abs=0.26)
    if sample.wait_percent is None:
        assert got.wait_percent is None
    else:
        assert got.wait_percent == pytest.approx(sample.wait_percent, abs=0.26)
    for field in ("mem_used_bytes", "mem_total_bytes"):
        assert abs(getattr(got, field) - getattr(sample, field)) <= codec.MEMORY_UNIT // 2
    assert got.uptime_s == int(sample.uptime_s)
    for field in ("jobs_here", "jobs_guest", "jobs_away"):
        assert getattr(got, field) == getattr(sample, field)


def test_giant_figures_are_capped() -> None:
    giant = LoadSample(load=1e9, mem_total_bytes=2**60, net_in_bps=1e30, jobs_here=10**6, uptime_s=1e12)
    got = codec.unpack_figures(codec.pack_figures(giant))
    assert (got.load, got.jobs_here) == (codec.HALF_MAX, 65535)
    assert codec.unpack_message(codec.pack_window([0], [1], [1], [codec.pack_figures(giant)], 0, False), 1)


def test_no_cores_are_a_few() -> None:
    got = codec.unpack_figures(codec.pack_figures(LoadSample(cores=0.0, speed=0.0)))
    assert got.cores > 0
    assert got.speed > 0


@pytest.mark.parametrize("value", [nan, inf, -1.0])
@pytest.mark.parametrize("field", ["load", "load_own", "load_guest", "cpu_percent", "cores", "net_in_bps", "uptime_s"])
def test_a_sensors_nonsense_is_not_spread(field: str, value: float) -> None:
    with pytest.raises(LocalProtocolError):
        codec.pack_figures(LoadSample(**{field: value}))  # type: ignore[arg-type]  # floats only


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [(at, "<e", bad) for at in (0, 2, 4, 16, 18) for bad in (nan, inf, -1.0)]
    + [(at, "<f", bad) for at in (24, 28) for bad in (nan, inf, -1.0, 1e30)]
    + [(6, "<B", 201), (7, "<B", 254)],
)
def test_a_bad_figure_anywhere_refuses_the_message(at: int, form: str, value: float) -> None:  # SECURITY case 16
    bad = bytearray(codec.pack_figures(LoadSample()))
    pack_into(form, bad, at, value)
    figures = [codec.pack_figures(LoadSample())] * 2
    with pytest.raises(RemoteProtocolError):
        codec.unpack_message(codec.pack_window([0] * 3, (1, 2, 3), [1] * 3, [*figures, bytes(bad)], 0, False), 1)


def test_an_absurd_age_is_refused() -> None:  # SECURITY case 16
    data = codec.pack_window([codec.ABSURD_AGE_MS + 1], [1], [1], [FIGURES], 0, False)
    with pytest.raises(RemoteProtocolError):
        codec.unpack_message(data, 1)


def test_the_first_entry_must_be_the_senders_own() -> None:
    data = codec.pack_window([0], [2], [1], [FIGURES], 0, False)
    with pytest.raises(RemoteProtocolError):
        codec.unpack_message(data, 1)


def test_shapes_that_cannot_be_are_refused() -> None:
    good = codec.pack_window([0, 0], [1, 1], [1, 1], [FIGURES, FIGURES], 1, True)
    assert codec.unpack_message(good, 1) is not None
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        b"X" + good[1:],
        good[:1] + b"\x07" + good[2:],
        codec.pack_window([0], [1], [1], [FIGURES], 1, False),
        codec.HEAD.pack(codec.KIND, codec.WINDOW, 0, 0),
        codec.pack_pull() + b"\0",
    ):
        with pytest.raises(RemoteProtocolError):
            codec.unpack_message(bad, 1)
    assert codec.unpack_message(codec.pack_pull(), 1) is None


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    for candidate in (data, b"B" + data):
        try:
            window = codec.unpack_message(candidate, 1)
        except RemoteProtocolError:
            continue
        assert window is None or len(window.figures) == codec.FIGURES_SIZE * len(window.ages_ms)


@settings(deadline=None)
@given(st.binary(min_size=codec.FIGURES_SIZE * 2, max_size=codec.FIGURES_SIZE * 2), st.integers(0, 10**7))
def test_entries_that_pass_hold_only_sane_figures(figures: bytes, age_ms: int) -> None:
    both = [figures[: codec.FIGURES_SIZE], figures[codec.FIGURES_SIZE :]]
    try:
        window = codec.unpack_message(codec.pack_window([age_ms] * 2, [1, 2], [1, 1], both, 0, False), 1)
    except RemoteProtocolError:
        return
    assert window is not None
    for one in both:
        s = codec.unpack_figures(one)
        for value in (s.load, s.load_own, s.load_guest, s.cpu_percent, s.cores, s.speed, s.net_in_bps, s.net_out_bps):
            assert 0 <= value < inf
        assert s.cpu_percent <= 100
        assert s.cores > 0
