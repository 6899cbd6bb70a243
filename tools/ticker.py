"""A job that measures its own freezes: it looks at the clock all the time and says when it was not let.

It holds about 16 MB (or what the first argument says) and prints a line each time it wakes on another host:
"GAP seconds host". The wall clock is used on purpose: the monotonic one stands still for a job that is frozen.
"""

from __future__ import annotations

import os
import sys
import time

MIB = 1 << 20


def main(megabytes: int) -> None:
    """Watch the clock for ever."""
    ballast = os.urandom(megabytes * MIB)
    host, last = os.uname().nodename, time.time()
    print(f"READY {os.getpid()} {len(ballast)}", flush=True)
    while True:
        time.sleep(0.001)
        now, here = time.time(), os.uname().nodename
        if here != host:
            print(f"GAP {now - last:.6f} {here}", flush=True)
            host = here
        last = now


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
