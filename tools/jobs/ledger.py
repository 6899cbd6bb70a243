"""A job for the demo: write a row into an SQLite file each second; the sum must stay right wherever it runs."""

from __future__ import annotations

import os
import sqlite3
import sys
import time


def main(path: str) -> None:
    """Write for ever, and check what was written before."""
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("create table if not exists ledger (number integer primary key, host text)")
    while True:
        base.execute("insert into ledger (host) values (?)", (os.uname().nodename,))
        rows, last = base.execute("select count(*), max(number) from ledger").fetchone()
        print(f"{os.uname().nodename}: {rows} rows, {'all there' if rows == last else 'ROWS ARE MISSING'}", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1])
