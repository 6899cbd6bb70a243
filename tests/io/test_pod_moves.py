"""Jobs that hop from pod to pod with CRIU and notice nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from omcore.checkpoint.criu import Criu
from omcore.errors import CheckpointFailed
from omcore.jobs.pod import Pod
from tests.io.podkit import CRIU, PYTHON, WAIT_FOR_SIGNALS, Home, Job, Sink, home

pytestmark = [pytest.mark.criu, pytest.mark.skipif(CRIU is None, reason="no CRIU")]

NUMBER_LINES = """
import sys, time
for number, line in enumerate(sys.stdin, 1):
    sys.stdout.write(f"{number} {line}")
    if number % 100 == 0:
        sys.stderr.write(f"e{number}\\n")
        sys.stdout.flush()
sys.exit(number % 256)
"""


async def test_a_dump_that_is_undone_loses_nothing() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "sleep 0.1; while read x; do echo got $x; done; exit 4"])
        job.type(b"one\ntwo\n")
        await job.sink.until(lambda: job.sink.taken == 8)
        for round_ in range(2):
            report = await job.pod.dump(here.images(), 20)
            assert report.image_bytes > 10_000
            job.type(b"frozen%d\n" % round_)
            with pytest.raises(CheckpointFailed, match="the pod is frozen"):
                await job.pod.dump(here.images(), 20)
            await job.pod.undo()
            assert job.pod.phase == "running"
        job.eof()
        assert await job.sink.status() == 4
        assert job.sink.out() == b"got one\ngot two\ngot frozen0\ngot frozen1\n"


def line(number: int) -> bytes:
    return b"line %d %s\n" % (number, b"x" * (number % 90))


class Feeder:
    """Types numbered lines as fast as they are taken, until told to stop."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.lines = 0
        self.stop = False

    async def run(self) -> None:
        while not self.stop:
            self.job.type(b"".join(line(n) for n in range(self.lines + 1, self.lines + 1001)))
            self.lines += 1000
            await self.job.sink.until(lambda: len(self.job.typed) - self.job.sink.taken < 100_000)
        self.job.eof()


async def test_streams_are_exact_under_load_for_several_hops() -> None:
    async with home() as here:
        job = await here.start([PYTHON, "-c", NUMBER_LINES])
        feeder = Feeder(job)
        feeding = asyncio.create_task(feeder.run())
        for _ in range(4):
            await job.sink.more("out", 200_000)
            await job.hop()
        feeder.stop = True
        await feeding
        job.eof()
        assert await job.sink.status() == feeder.lines % 256
        assert job.sink.out() == b"".join(b"%d %s" % (n, line(n)) for n in range(1, feeder.lines + 1))
        assert job.sink.out("err") == b"".join(b"e%d\n" % n for n in range(100, feeder.lines + 1, 100))


async def test_input_that_was_closed_but_not_read_travels_too() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "echo up; kill -STOP $$; cat; exit 2"])
        await job.sink.until(lambda: job.sink.stopped == signal.SIGSTOP)
        job.type(b"kept " * 1000)
        job.eof()
        await job.sink.until(lambda: job.sink.taken == 5000)
        await job.hop()
        await job.hop()
        assert job.pod.stopped == signal.SIGSTOP  # the user stopped it, the user lets it go on
        job.kill(signal.SIGCONT)
        assert await job.sink.status() == 2
        assert job.sink.out() == b"up\n" + b"kept " * 1000


async def test_output_that_nobody_took_travels_too() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "seq 200000; echo end >&2; exit 6"])
        job.sink.ack = False
        await job.sink.until(lambda: len(job.sink.out()) >= 256 * 1024)
        have = len(job.sink.out())
        job.pod.acknowledge("out", 1000)
        await job.hop()
        job.sink.ack = True
        job.pod.acknowledge("out", have)
        assert await job.sink.status() == 6
        assert job.sink.out() == b"".join(b"%d\n" % n for n in range(1, 200_001))


async def test_a_stream_that_nobody_reads_stays_closed() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "echo one; read x; echo two; echo err$? >&2; exit 5"])
        await job.sink.until(lambda: job.sink.out() == b"one\n")
        job.pod.close_output("out")
        await job.hop()
        await job.hop()
        job.type(b"\n")
        status = await job.sink.status()
        assert status in (5, -signal.SIGPIPE)
        assert job.sink.out() == b"one\n"


async def test_a_pipeline_of_bash_goes_on() -> None:
    script = (
        "{ seq 30000; read go; } | while read x; do echo $((x * 2)); done |"
        " awk '{s += $1} END {print s}' | sed s/^/sum=/; exit 4"
    )
    async with home() as here:
        job = await here.start(["bash", "-c", script])
        for _ in range(2):
            await job.hop()
        job.type(b"go\n")
        assert await job.sink.status() == 4
        assert job.sink.out() == b"sum=900030000\n"


async def test_a_sleep_goes_on_sleeping_in_four_hops_at_once() -> None:
    async with home() as here:
        jobs = [await here.start(["sh", "-c", f"read x; sleep 4; exit {code}"]) for code in range(1, 5)]
        spares = [await here.pod(job.sink) for job in jobs]
        for job in jobs:
            job.type(b"go\n")
            await until_child(job, "sleep")
        await asyncio.gather(*(job.move_to(spare) for job, spare in zip(jobs, spares, strict=True)))
        assert [await job.sink.status() for job in jobs] == [1, 2, 3, 4]


async def test_a_database_writer_keeps_its_locks(tmp_path: Path) -> None:
    script = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("create table t (n)")
db.execute("begin immediate")
for n in range(3000):
    db.execute("insert into t values (?)", (n,))
    if n == 1000:
        print("half", flush=True)
        sys.stdin.readline()
db.execute("commit")
"""
    path = tmp_path / "test.db"
    async with home() as here:
        job = await here.start([PYTHON, "-c", script, str(path)])
        await job.sink.until(lambda: job.sink.out() == b"half\n")
        images = here.images()
        other = await here.pod(job.sink)
        await job.pod.dump(images, 20)
        await job.pod.retire()  # the stopped source still holds the lock on the shared file system
        await other.restore(images, 20)
        await job.go_on(other)
        job.type(b"go\n")
        assert await job.sink.status() == 0
    with sqlite3.connect(path) as db:
        assert db.execute("select count(*) from t").fetchone() == (3000,)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


async def test_a_terminal_program_hops_with_typed_ahead_input() -> None:
    script = "stty -echo; sleep 0.3; kill -STOP $$; stty echo; read a; echo [$a]; read b; echo [$b]; stty size; exit 3"
    async with home() as here:
        job = await here.start(["sh", "-c", script], tty=(0, 1, 2))
        await job.sink.until(lambda: job.sink.stopped == signal.SIGSTOP)
        job.pod.resize(31, 99)
        job.type(b"first line\nsecond partial")
        await job.sink.until(lambda: job.sink.taken == len(job.typed))
        await job.hop()
        await job.hop()
        job.type(b" end\x7f\x7f\x7fEND\n")
        await job.sink.until(lambda: job.sink.taken == len(job.typed))
        job.kill(signal.SIGCONT)
        assert await job.sink.status() == 3
        assert job.sink.out("tty").endswith(b"[first line]\r\n[second partial END]\r\n31 99\r\n")


async def test_job_control_works_after_a_hop() -> None:
    async with home() as here:
        job = await here.start(["sleep", "1000"], tty=(0, 1, 2))
        await job.hop()
        job.type(b"\x1a")
        await job.sink.until(lambda: job.sink.stopped == signal.SIGTSTP)
        await job.hop()
        assert job.pod.stopped == signal.SIGTSTP
        job.kill(signal.SIGCONT)
        await job.sink.until(lambda: job.sink.stopped == 0)
        await job.hop()
        job.type(b"\x03")
        assert await job.sink.status() == -signal.SIGINT


async def test_an_interactive_shell_keeps_its_jobs() -> None:
    async with home() as here:
        job = await here.start(["bash", "--norc", "-i"], tty=(0, 1, 2))

        def out() -> bytes:
            return job.sink.out("tty")

        job.type(b"sleep 1000\n")
        await job.sink.until(lambda: b"sleep 1000\r\n" in out())
        await until_child(job, "sleep")
        await job.hop()
        job.type(b"\x1a")
        await job.sink.until(lambda: b"Stopped" in out())
        await job.hop()
        job.type(b"jobs; kill %1; while jobs -p | grep -q .; do sleep 0.05; jobs; done; echo left=$(jobs -p | wc -l)\n")
        job.type(b"exit 5\n")
        assert await job.sink.status() == 5
        assert b"left=0" in out()


async def until_child(job: Job, name: str) -> None:
    """Wait until the shell has started its child: until the root has a child of that name."""
    await asyncio.wait_for(asyncio.to_thread(watch_children, job.pod.root_pid, name), 20)


def watch_children(pid: int, name: str) -> None:
    """Ask the kernel until it is so: there is no event for another process's exec."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while name not in [Path(f"/proc/{child}/comm").read_text().strip() for child in children.read_text().split()]:
        os.sched_yield()


async def test_the_python_prompt_survives() -> None:
    async with home() as here:
        job = await here.start([PYTHON, "-q", "-i"], tty=(0, 1, 2))
        job.type(b"x = 6 * 7\nprint('ready')\n")
        await job.sink.until(lambda: b"\nready" in job.sink.out("tty"))
        await job.hop()
        job.type(b"print('x is', x)\n")
        await job.sink.until(lambda: b"x is 42" in job.sink.out("tty"))
        job.type(b"raise SystemExit(8)\n")
        assert await job.sink.status() == 8


async def test_a_damaged_image_is_refused_and_the_source_goes_on() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "read x; echo $x; exit 11"])
        images = here.images()
        await job.pod.dump(images, 20)
        core = next(images.glob("core-*.img"))
        core.write_bytes(core.read_bytes()[:100])
        other = await here.pod(Sink())
        with pytest.raises(CheckpointFailed) as caught:
            await other.restore(images, 20)
        assert caught.value.text
        assert other.phase == "empty"
        await other.retire()
        (images / "relay.img").write_bytes(b"no relay")
        with pytest.raises(CheckpointFailed, match="relay state"):
            await (await here.pod(Sink())).restore(images, 20)
        await job.pod.undo()
        job.type(b"still here\n")
        assert await job.sink.status() == 11
        assert job.sink.out() == b"still here\n"


async def test_a_restored_copy_that_is_not_wanted_dies_in_silence() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "echo up; read x; echo $x; exit 12"])
        await job.sink.until(lambda: job.sink.out() == b"up\n")
        images = here.images()
        await job.pod.dump(images, 20)
        silent = Sink()
        other = await here.pod(silent)
        await other.restore(images, 20)
        assert other.phase == "restored"
        await other.retire()
        assert silent.ended is None
        assert not silent.gone
        await job.pod.undo()
        job.type(b"me\n")
        assert await job.sink.status() == 12


async def test_a_daemon_outside_the_tree_is_refused() -> None:
    script = """
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(1000)
os.wait()
print("up", flush=True)
time.sleep(1000)
"""
    async with home() as here:
        job = await here.start([PYTHON, "-c", script])
        await job.sink.until(lambda: job.sink.out() == b"up\n")
        with pytest.raises(CheckpointFailed, match="left the job's tree"):
            await job.pod.dump(here.images(), 20)
        assert job.pod.phase == "running"


async def test_what_criu_cannot_dump_is_told_in_words_and_runs_on() -> None:
    script = """
import socket, sys
a = socket.socket(socket.AF_UNIX); a.connect(sys.argv[1])
print("up", flush=True)
print(sys.stdin.readline(), end="")
"""
    async with home() as here:
        path = str(here.path / "s")
        kept: list[object] = []  # a writer that nobody holds closes its connection
        server = await asyncio.start_unix_server(lambda r, w: kept.append(w), path)
        job = await here.start([PYTHON, "-c", script, path])
        await job.sink.until(lambda: job.sink.out() == b"up\n")
        with pytest.raises(CheckpointFailed, match="unix socket") as caught:
            await job.pod.dump(here.images(), 20)
        assert caught.value.hint
        assert caught.value.log_tail
        job.type(b"on\n")
        assert await job.sink.status() == 0
        assert job.sink.out() == b"up\non\n"
        server.close()


async def test_a_dump_that_takes_too_long_is_given_up() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "read x; exit 9"])
        slow = here.path / "criu"
        slow.write_text("#!/bin/sh\nexec sleep 1000\n")
        slow.chmod(0o755)
        job.pod.criu = Criu((str(slow),), (4, 2))
        with pytest.raises(CheckpointFailed, match="longer than 1 s"):
            await job.pod.dump(here.images(), 1)
        job.type(b"\n")
        assert await job.sink.status() == 9


async def test_a_job_that_ends_while_criu_works_is_ended() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "read x; exit 9"])
        slow = here.path / "criu"
        slow.write_text(f"#!/bin/sh\necho > {here.path}/began\nkill -KILL 2\nexec sleep 1000\n")
        slow.chmod(0o755)
        job.pod.criu = Criu((str(slow),), (4, 2))
        with pytest.raises(CheckpointFailed, match="has just ended"):
            await job.pod.dump(here.images(), 20)
        assert await job.sink.status() == -signal.SIGKILL


async def test_signals_sent_during_a_move_arrive_once() -> None:
    async with home() as here:
        job = await here.start([PYTHON, "-c", WAIT_FOR_SIGNALS, "10", "12"])
        await job.sink.until(lambda: job.sink.out() == b"up\n")
        other = await here.pod(job.sink)
        images = here.images()
        await job.pod.dump(images, 20)
        job.kill(signal.SIGUSR1)
        await other.restore(images, 20)
        await job.pod.retire()
        await job.go_on(other)
        assert other.counters.signals_taken == 0
        other.signal(1, signal.SIGUSR1)
        other.signal(1, signal.SIGUSR1)
        other.signal(2, signal.SIGUSR2)
        await job.sink.until(lambda: b"got 12" in job.sink.out())
        other.signal(3, signal.SIGTERM)
        await job.sink.status()
        assert job.sink.out() == b"up\ngot 10 0 0\ngot 12 0 0\n"


async def test_an_engine_that_left_during_the_dump_finds_the_job_frozen() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "read x; echo $x"])
        dumping = asyncio.create_task(job.pod.dump(here.images(), 20))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await job.pod.close()
        with pytest.raises(Exception, match="the pod is gone"):
            await dumping
        found = await Pod.find(job.pod.directory, job.sink, here.pods[0].criu)
        assert found is not None
        here.pods.append(found)
        job.pod = job.sink.pod = found
        if found.phase == "frozen":
            await found.undo()
        job.type(b"yes\n")
        assert await job.sink.status() == 0
        assert job.sink.out() == b"yes\n"


async def test_a_dump_of_a_job_that_ended_says_so() -> None:
    async with home() as here:
        job = await here.start(["true"])
        await job.sink.status()
        with pytest.raises(CheckpointFailed, match="ended"):
            await job.pod.dump(here.images(), 20)


async def test_a_stopped_copy_that_is_killed_takes_its_pod_along() -> None:
    async with home() as here:
        job = await start_sleeper(here)
        await job.pod.dump(here.images(), 20)
        os.kill(job.pod.root_pid, signal.SIGKILL)
        await job.sink.until(lambda: job.sink.gone)
        assert job.sink.ended is None


async def start_sleeper(here: Home) -> Job:
    return await here.start(["sleep", "1000"])
