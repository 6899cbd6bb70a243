"""A job for the demo: count primes, hold some memory, say now and then how far it is."""

from __future__ import annotations

import os
import sys
import time

MIB = 1 << 20


def main(megabytes: int) -> None:
    """Work for ever with about this much memory in use."""
    ballast = bytearray(os.urandom(MIB)) * megabytes
    primes: list[int] = []
    number, said = 1, time.monotonic()
    while True:
        number += 1
        if all(number % prime for prime in primes if prime * prime <= number):
            primes.append(number)
            ballast[number % len(ballast)] ^= 1
        if time.monotonic() - said >= 1.0:
            said = time.monotonic()
            print(f"{os.uname().nodename}: {len(primes)} primes up to {number}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
