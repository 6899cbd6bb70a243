"""Order of the whole suite when it runs in parallel; who started it and how busy the machine is must not matter."""

from __future__ import annotations

import signal

import hypothesis
import pytest

hypothesis.settings.register_profile("house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("house")

# A shell without job control starts what it puts into the background deaf to these, and children would inherit that.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Labs first and one after the other: two at once starve each other, and late ones would be the tail."""
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.xdist_group("lab"))
    items.sort(key=lambda item: item.get_closest_marker("lab") is None)
