"""Order of the whole suite when it runs in parallel."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Labs first and one after the other: two at once starve each other, and late ones would be the tail."""
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.xdist_group("lab"))
    items.sort(key=lambda item: item.get_closest_marker("lab") is None)
