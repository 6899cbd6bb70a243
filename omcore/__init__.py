"""The engine of omview: gossip, migration, jobs; knows nothing of the terminal app."""

__version__ = "0.1.0"
