"""Fixtures of the command-line tests."""

from tests.cli.fake import client, omview

__all__ = ["client", "omview"]
