"""A job in a pod that stays where it is: exit codes, streams, signals, terminal, engine restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from omcore.errors import CheckpointFailed, CommandNotExecutable, CommandNotFound, PodError
from omcore.jobs.frames import WINDOW
from omcore.jobs.pod import Output, Pod, read_stdio
from omcore.types import RunSpec
from tests.io.podkit import PYTHON, WAIT_FOR_SIGNALS, Home, Job, Sink, home


@pytest.mark.parametrize("code", [0, 7, 255])
async def test_the_exit_code_is_exact(code: int) -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", f"exit {code}"])
        assert await job.sink.status() == code
        assert job.pod.phase == "ended"
        await job.pod.end()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
async def test_death_by_a_signal_is_told_as_such(signum: int) -> None:
    async with home() as here:
        job = await here.start(["sleep", "1000"])
        job.kill(signum)
        assert await job.sink.status() == -signum
        assert job.sink.signals == 1


async def test_signals_are_applied_once_and_in_order() -> None:
    async with home() as here:
        job = await here.start([PYTHON, "-c", WAIT_FOR_SIGNALS, "10"])
        await job.sink.until(lambda: job.sink.out() == b"up\n")
        for seq in (1, 1, 3, 0):  # a repeat, a gap and an old one count nothing
            job.pod.signal(seq, signal.SIGUSR1)
        await job.sink.until(lambda: job.sink.out() == b"up\ngot 10 0 0\n")
        job.pod.signal(2, signal.SIGTERM)
        assert await job.sink.status() == -signal.SIGTERM
        assert job.sink.out() == b"up\ngot 10 0 0\n"


async def test_all_input_arrives_and_its_end() -> None:
    async with home() as here:
        job = await here.start(["wc", "-c"])
        total = 3_000_000
        while len(job.typed) < total:
            job.type(bytes(min(100_000, total - len(job.typed))))
            job.pod.feed(0, b"again")  # old input is cut off
            await job.sink.until(lambda: job.sink.taken >= len(job.typed) - WINDOW // 2)
        job.pod.feed(total + 10, b"a gap")
        job.eof()
        assert await job.sink.status() == 0
        assert job.sink.out() == b"3000000\n"
        assert job.sink.taken == total


async def test_input_that_nobody_reads_is_swallowed() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "exec <&-; echo closed; sleep 1000"])
        await job.sink.until(lambda: job.sink.out() == b"closed\n")
        job.type(b"hello")
        await job.sink.until(lambda: job.sink.taken == 5)


async def test_output_is_exact_and_bounded_by_the_window() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "seq 700000; echo done >&2"])
        job.sink.ack = False
        early = job.pod.counters.acked.get("out", 0)
        await job.sink.until(lambda: len(job.sink.out()) >= WINDOW + early)
        assert len(job.sink.out()) == WINDOW + early
        assert job.sink.ended is None
        while job.sink.ended is None:
            acked = job.pod.counters.acked.get("out", 0)
            job.pod.acknowledge("out", min(acked + 100_000, len(job.sink.out())))
            job.pod.acknowledge("err", len(job.sink.out("err")))
            await job.sink.more("out", 1)
        assert job.sink.out() == b"".join(b"%d\n" % n for n in range(1, 700001))
        assert job.sink.out("err") == b"done\n"


async def test_a_reader_that_left_stops_the_writer() -> None:
    async with home() as here:
        job = await here.start(["yes"])
        job.sink.ack = False
        await job.sink.until(lambda: len(job.sink.out()) > 1000)
        job.pod.close_output("out")
        job.sink.ack = True
        job.pod.acknowledge("out", len(job.sink.out()))
        assert await job.sink.status() == -signal.SIGPIPE


async def test_what_is_left_in_the_background_goes_with_the_root() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "(echo early; sleep 1000) & sleep 0.2; exit 3"])
        assert await job.sink.status() == 3
        assert job.sink.out() == b"early\n"


async def test_errors_of_exec_are_told_in_words(tmp_path: Path) -> None:
    async with home() as here:
        pod = await here.pod(Sink())
        with pytest.raises(CommandNotFound, match="no-such-thing: command not found") as caught:
            await pod.start(RunSpec(("no-such-thing",), cwd="/", env=("PATH=/bin",)))
        assert caught.value.hint
        with pytest.raises(CommandNotExecutable, match="/etc/passwd: Permission denied"):
            await pod.start(RunSpec(("/etc/passwd",), cwd="/", env=()))
        with pytest.raises(PodError, match="/no/where"):
            await pod.start(RunSpec(("true",), cwd="/no/where", env=("PATH=/bin",)))
        assert pod.phase == "empty"
        with pytest.raises(CheckpointFailed, match="the pod is empty"):
            await pod.undo()
        assert await pod.start(RunSpec(("sleep", "9"), cwd="/", env=("PATH=/bin",))) > 0
        assert comm(pod.root_pid) == "sleep"


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


async def test_the_job_gets_what_its_caller_had() -> None:
    script = """
import os, resource, signal, sys
print(os.getcwd(), oct(os.umask(0)), sorted(os.environ.items()), resource.getrlimit(resource.RLIMIT_NOFILE))
print(resource.getrlimit(resource.RLIMIT_CORE)[0], sorted(os.listdir('/proc/self/fd'))[:4])
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), os.getsid(0), os.getppid(), os.getpid() == os.getpgid(0))
"""
    async with home() as here:
        sink = Sink()
        pod = await here.pod(sink)
        sink.pod = pod
        limits = ((7, 77, 99), (4, 0, 0))
        run = RunSpec((PYTHON, "-c", script), "/tmp", ("A=1", "B=x=y"), umask=0o027, limits=limits)
        await pod.start(run)
        assert await sink.status() == 0
        lines = sink.out().decode().splitlines()
        assert lines[0].startswith("/tmp 0o27 ")
        assert "('A', '1'), ('B', 'x=y')" in lines[0]
        assert lines[0].endswith("(77, 99)")
        assert lines[1] == "0 ['0', '1', '2', '3']"
        assert lines[2] == "set() 1 1 True"


async def test_the_pod_hides_what_the_job_must_not_see() -> None:
    async with home() as here:
        secret = here.path / "secret"
        secret.mkdir()
        (secret / "key").write_text("x")
        sink = Sink()
        spec = here.spec()
        spec = type(spec)(spec.job, spec.directory, spec.criu, spec.kdat, masks=(str(secret),))
        pod = await Pod.create(spec, sink)
        here.pods.append(pod)
        sink.pod = pod
        show = (
            f"ls {secret} {spec.directory} | grep -c key; ls /proc | grep -c '^[0-9]'; touch {secret}/a; ls /proc/1/fd"
        )
        await pod.start(RunSpec(("sh", "-c", show), "/", ("PATH=/usr/bin:/bin",)))
        await sink.status()
        assert sink.out().split()[0] == b"0"
        assert int(sink.out().split()[1]) < 8
        assert b"Read-only" in sink.out("err")


async def test_a_terminal_program_sees_a_terminal() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "stty size; tty; exec cat >/dev/tty"], tty=(0, 1, 2))
        await job.sink.until(lambda: b"/dev/pts/" in job.sink.out("tty"))
        assert job.sink.out("tty").startswith(b"24 80\r\n")
        job.type(b"echo me\n")
        await job.sink.until(lambda: job.sink.out("tty").endswith(b"echo me\r\necho me\r\n"))
        job.type(b"\x04")
        assert await job.sink.status() == 0


async def test_the_window_size_follows() -> None:
    async with home() as here:
        job = await here.start([PYTHON, "-c", WAIT_FOR_SIGNALS, "28"], tty=(0, 1, 2))
        await job.sink.until(lambda: b"up" in job.sink.out("tty"))
        job.pod.resize(33, 101)
        await job.sink.until(lambda: b"got 28 33 101" in job.sink.out("tty"))


async def test_only_some_descriptors_may_be_the_terminal() -> None:
    async with home() as here:
        job = await here.start(
            ["sh", "-c", "test -t 0 && test ! -t 1 && test -t 2; echo $?; stty size >&2"], tty=(0, 2)
        )
        assert await job.sink.status() == 0
        assert job.sink.out() == b"0\n"
        assert job.sink.out("tty") == b"24 80\r\n"


async def test_control_c_and_control_z_do_as_in_a_shell() -> None:
    async with home() as here:
        job = await here.start(["sleep", "1000"], tty=(0, 1, 2))
        job.type(b"\x1a")
        await job.sink.until(lambda: job.sink.stopped == signal.SIGTSTP)
        job.kill(signal.SIGCONT)
        await job.sink.until(lambda: job.sink.stopped == 0)
        job.type(b"\x03")
        assert await job.sink.status() == -signal.SIGINT


async def test_a_job_with_pipes_stops_and_continues_too() -> None:
    async with home() as here:
        job = await here.start(["sleep", "1000"])
        job.kill(signal.SIGTSTP)
        await job.sink.until(lambda: job.sink.stopped == signal.SIGTSTP)
        job.kill(signal.SIGCONT)
        await job.sink.until(lambda: job.sink.stopped == 0)


async def test_a_new_engine_takes_over_in_the_middle() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "seq 300000; cat; exit 5"])
        job.sink.ack = False
        await job.sink.until(lambda: len(job.sink.out()) > 100_000)
        job.pod.acknowledge("out", 50_000)
        await job.pod.close()
        found = await Pod.find(job.pod.directory, job.sink)
        assert found is not None
        here.pods.append(found)
        assert found.phase == "running"
        assert found.root_pid == job.pod.root_pid
        job.pod = job.sink.pod = found
        job.sink.ack = True
        found.acknowledge("out", len(job.sink.out()))
        job.type(b"more")
        job.eof()
        assert await job.sink.status() == 5
        assert job.sink.out() == b"".join(b"%d\n" % n for n in range(1, 300001)) + b"more"


async def test_an_end_that_no_engine_saw_is_told_to_the_next() -> None:
    async with home() as here:
        job = await here.start(["sh", "-c", "read x; echo bye $x; exit 9"])
        await job.pod.close()
        for name in ("one", "two"):  # told again until the pod goes
            sink = Sink()
            found = await Pod.find(job.pod.directory, sink)
            assert found is not None
            here.pods.append(found)
            found.feed(0, name.encode() + b"\n")
            assert await sink.status() == 9
            assert sink.out() == b"bye one\n"
            await found.close()
        last = await Pod.find(job.pod.directory, Sink())
        assert last is not None
        await last.retire()
        assert await Pod.find(job.pod.directory, Sink()) is None


async def test_a_killed_shim_takes_everything_with_it() -> None:
    async with home() as here:
        job = await here.start(["sleep", "1000"])
        root = job.pod.root_pid
        os.kill(job.pod.shim_pid, signal.SIGKILL)
        await job.sink.until(lambda: job.sink.gone)
        assert comm(root) == ""
        assert await Pod.find(job.pod.directory, job.sink) is None


@pytest.mark.slow
async def test_output_is_fast() -> None:
    async with home() as here:
        began = time.monotonic()
        job = await here.start(["head", "-c", str(100 << 20), "/dev/zero"])
        seen = 0

        def count(event: object) -> None:
            nonlocal seen
            if isinstance(event, Output):
                seen = event.offset + len(event.data)
                job.pod.acknowledge("out", seen)
            job.sink._changed.set()

        job.pod._on_event = count
        await job.sink.until(lambda: job.pod.phase == "ended")
        assert seen == 100 << 20
        assert time.monotonic() - began < 10  # 0.3 s on an idle machine


async def test_two_pods_know_nothing_of_each_other() -> None:
    async with home() as here:
        jobs = await asyncio.gather(*(start_counter(here) for _ in range(3)))
        for code, job in enumerate(jobs):
            job.type(b"%d\n" % code)
        assert [await job.sink.status() for job in jobs] == [0, 1, 2]


async def start_counter(here: Home) -> Job:
    return await here.start(["sh", "-c", "read x; exit $x"])


def test_a_relay_state_that_another_node_made_too_large_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "relay.img", "wb") as file:
        file.truncate(1 << 36)  # sparse here; a move's limit is of that size for a big job
    with pytest.raises(ValueError, match="too large"):
        read_stdio(tmp_path)
