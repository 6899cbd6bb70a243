"""Run by test_pod_rootless.py as an ordinary user, with that user's own Python: no pytest in here."""

from __future__ import annotations

import asyncio
import signal
import sys

from tests.io.podkit import home

PRIVILEGES = "grep -E '^(Cap|NoNew)' /proc/self/status; unshare -Ur true; test $? != 0 && echo no-nesting"


async def counting() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "while read x; do echo $x; echo e$x >&2; done; exit 7"])
        for hop in range(3):
            job.type(b"%d\n" % hop)
            await job.hop()
        job.eof()
        assert await job.sink.status() == 7
        assert job.sink.out() == b"0\n1\n2\n"
        assert job.sink.out("err") == b"e0\ne1\ne2\n"


async def terminal() -> None:
    async with home() as here:
        job = await here.start(["sleep", "1000"], tty=(0, 1, 2))
        await job.hop()
        job.type(b"\x1a")
        await job.sink.until(lambda: job.sink.stopped == signal.SIGTSTP)
        await job.hop()
        job.kill(signal.SIGCONT)
        await job.sink.until(lambda: job.sink.stopped == 0)
        job.type(b"\x03")
        assert await job.sink.status() == -signal.SIGINT


async def undone() -> None:
    async with home() as here:
        job = await here.start(["bash", "-c", "read x; echo $x | cat; exit 3"])
        await job.pod.dump(here.images(), 20)
        await job.pod.undo()
        job.type(b"back\n")
        assert await job.sink.status() == 3
        assert job.sink.out() == b"back\n"


async def privileges() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", f"{PRIVILEGES}; read x; {PRIVILEGES}"])
        await job.sink.until(lambda: b"no-nesting" in job.sink.out())
        await job.hop()
        job.type(b"\n")
        assert await job.sink.status() == 0
        for half in job.sink.out().split(b"no-nesting\n")[:2]:
            values = dict(text.split(b":\t") for text in half.splitlines())
            assert values.pop(b"NoNewPrivs") == b"1"
            assert set(values.values()) == {b"0" * 16}, values
        assert job.sink.out().count(b"no-nesting") == 2


async def threads() -> None:
    script = (
        "import threading, sys\n"
        "done = threading.Event()\n"
        "workers = [threading.Thread(target=done.wait) for _ in range(4)]\n"
        "[w.start() for w in workers]\n"
        "print('up', flush=True); sys.stdin.readline(); done.set(); [w.join() for w in workers]; sys.exit(6)\n"
    )
    async with home() as here:
        job = await here.start([sys.executable, "-c", script])
        await job.sink.until(lambda: job.sink.out() == b"up\n")
        await job.hop()
        job.type(b"\n")
        assert await job.sink.status() == 6


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]]())
