"""A node has got another key: its own jobs' papers name it by the new one.

Only for jobs that are at home and run here: other nodes' papers name them as well, and nobody can rewrite those.
"""

from __future__ import annotations

from omcore.handoff.records import Journal, Record
from omcore.jobs.store import JOURNAL, HomeStore, JournalFile, RecordStore
from omcore.paths import Paths
from omcore.types import NodeId
from omcore.wire import pack, unpack


def rename_node(places: Paths, old: NodeId, new: NodeId) -> None:
    """Put `new` for `old` into every journal and record; may be repeated. No engine may be running."""
    homes = HomeStore(places.state)
    for meta in homes.load():
        file = JournalFile(homes.directory(meta.id) / JOURNAL)
        try:
            if file.journal is not None:
                file.write(unpack(_renamed(pack(file.journal), old, new), Journal))
                file.sync()
        finally:
            file.close()
    records = RecordStore(places.runtime, places.images)
    for record in tuple(records.load()):
        records.write(unpack(_renamed(pack(record), old, new), Record))


def _renamed(data: bytes, old: NodeId, new: NodeId) -> bytes:
    # Both are 64 hexadecimal digits, so lengths stay; nothing else in these papers looks like a key by chance.
    return data.replace(old.encode(), new.encode())
