"""What the engine answers to faces: one method for each request of `omcore.requests`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from omcore import messages, requests
from omcore.control import Channel
from omcore.errors import RemoteProtocolError, UsageError
from omcore.handoff.records import How
from omcore.jobs.home import HomeJob
from omcore.requests import CONTROL
from omcore.types import JobId, MovePlan, MoveResult, NodeId
from omcore.wire import CHUNK

if TYPE_CHECKING:
    from omcore.node import Node

VIEW_S = 1.0
STEP_S = 0.1
"""Least pause between two views: a second, or this while a move takes its steps."""
FIRST_S = 0.5
"""How long the first view waits for other nodes' jobs."""
MIGRATE_S = 600.0
ANSWER_S = 15.0
"""How long another node may take to answer: a move takes its time, a plan asks all nodes, a lock or signal neither."""
REPLAY = 8192
"""Bytes of a terminal's past that a newly attached one is shown."""


class Seat:
    """A deputy's place at a job's terminal."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def write(self, message: object) -> None:
        """Queue a message; the terminal's window bounds what is outstanding."""
        self._channel.write(message)


class Faces:
    """Answers to one control connection's requests."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def handle(self, message: Any, channel: Channel) -> None:
        """Answer one request; errors are told by the caller."""
        with self._node.trail.request(channel.uid, message):
            await self._answer(message, channel)

    async def _answer(self, message: Any, channel: Channel) -> None:
        match message:
            case requests.Follow():
                await self._follow(message, channel)
            case requests.FollowProcesses():
                async for delta in self._node.lists.follow(message.nodes, message.once):
                    await channel.send(delta)
            case requests.AskHistory():
                await channel.send(requests.Histories(self._node.cluster.history()))
            case requests.AskBoards():
                async for board in self._node.insight.boards(message.everybody):
                    await channel.send(board)
            case requests.AskNet():
                await channel.send(self._node.insight.net())
            case requests.Run():
                await self._run(message, channel)
            case requests.Attach():
                await self._attach(message, channel)
            case requests.AskLogs():
                await self._logs(message, channel)
            case requests.SignalProcess():
                await self._signal_process(message)
            case requests.Invite() | requests.Join() | requests.Forget():
                await channel.send(requests.Text(await self._node.membership.ask(message)))
            case (
                requests.Leave()
                | requests.ImportKey()
                | requests.ShareKey()
                | requests.RotateKey()
                | requests.AcceptKey()
            ):
                await channel.send(requests.Text(await self._node.signing.ask(message)))
            case requests.AskKeys():
                await channel.send(self._node.signing.view())
            case requests.AskSecurity():
                await channel.send(self._node.trail.view())
            case requests.ExportKey():
                await channel.send(requests.Sealed(await self._node.signing.export(message.passphrase)))
            case requests.Stop():
                self._node.stopping.set()
            case requests.AskPlan() | requests.Migrate() | requests.Lock() | requests.Signal():
                answer = await self._at_home(message)
                if answer is not None:
                    await channel.send(answer)
            case _:
                raise RemoteProtocolError("that is no request")

    # -- views

    async def _follow(self, message: requests.Follow, channel: Channel) -> None:
        node = self._node
        if message.once:
            await node.overview.poll()
            await channel.send(node.overview.view())
            return
        polled = asyncio.create_task(node.overview.poll())
        try:
            await asyncio.wait({polled}, timeout=FIRST_S)
            while True:
                changed = node.changed
                started = node.now()
                view = node.overview.view()
                await channel.send(view)
                moving = any(move.total_s is None for move in view.moves)
                await asyncio.sleep(STEP_S)
                left = VIEW_S - (node.now() - started)
                try:
                    await asyncio.wait_for(changed.wait(), max(0.0, left))
                    if not moving:
                        await asyncio.sleep(0)
                except TimeoutError:
                    pass
                if polled.done():
                    polled = asyncio.create_task(node.overview.poll())
        finally:
            polled.cancel()

    # -- requests that belong to a job's home

    async def _at_home(self, message: Any) -> object | None:
        home = self._home_of(message.job)
        if home == self._node.me:
            return await self.obey(message)
        question = messages.Forward(CONTROL.encode(message))
        name = self._node.cluster.name(home)
        patience = MIGRATE_S if isinstance(message, requests.Migrate) else ANSWER_S
        watching = (
            asyncio.create_task(self._node.overview.watch_moves(home))
            if isinstance(message, requests.Migrate)
            else None
        )
        try:
            answer = await self._node.calls.ask(home, question, messages.Forwarded, patience, name)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.wait({watching})
                self._node.spawn(self._node.overview.ask(home))
        return CONTROL.decode(answer.answer) if answer.answer else None

    def _home_of(self, job: JobId) -> NodeId:
        if job in self._node.jobs.homes:
            return self._node.me
        for view in self._node.overview.jobs():
            if view.id == job:
                return self._node.cluster.numbers[view.home]
        raise UsageError("There is no such job.", "See: omview jobs")

    async def obey(self, message: Any) -> MovePlan | MoveResult | None:
        """Carry out a request about a job whose home is here."""
        jobs = self._node.jobs
        match message:
            case requests.AskPlan():
                return await jobs.moving.plan(message.job)
            case requests.Migrate():
                return await jobs.moving.migrate(message.job, message.to)
            case requests.Lock():
                jobs.lock(message.job, message.locked)
            case requests.Signal():
                jobs.signal(message.job, message.signum)
            case _:
                raise RemoteProtocolError("that is no request for a job's home")
        return None

    async def forwarded(self, request: bytes) -> bytes:
        """A request of a face at another node, for a job whose home is here."""
        answer = await self.obey(CONTROL.decode(request))
        return b"" if answer is None else CONTROL.encode(answer)

    async def _signal_process(self, message: requests.SignalProcess) -> None:
        node = self._node.cluster.numbers.get(message.key.node)
        if node is None:
            raise UsageError(f"There is no node {message.key.node}.")
        if node == self._node.me:
            self._node.jobs.signal_process(message.key, message.signum)
            return
        question = messages.SignalHere(message.key, message.signum)
        name = self._node.cluster.name(node)
        await self._node.calls.ask(node, question, messages.Nothing, 5.0, name)

    # -- terminals

    async def _run(self, message: requests.Run, channel: Channel) -> None:
        job = await self._node.jobs.run(message.spec)
        await channel.send(requests.Attached(job.id, job.terminal.typed, job.meta.tty, job.meta.name))
        if not message.spec.detach:
            await self._terminal(job, channel, (0, 0, 0), 0)

    async def _attach(self, message: requests.Attach, channel: Channel) -> None:
        job = self._here(message.job)
        await channel.send(requests.Attached(job.id, job.terminal.typed, job.meta.tty, job.meta.name))
        if message.rows and message.cols and job.meta.tty:
            job.resize(message.rows, message.cols)
        await self._terminal(job, channel, message.offsets, REPLAY if job.meta.tty else 0)

    def _here(self, job: JobId) -> HomeJob:
        found = self._node.jobs.homes.get(job)
        if found is not None:
            return found
        home = self._node.cluster.name(self._home_of(job))
        raise UsageError(f"The terminal of that job is at its home, {home}.", f"Run this on {home}.")

    async def _terminal(self, job: HomeJob, channel: Channel, offsets: tuple[int, int, int], replay: int) -> None:
        seat = Seat(channel)
        job.terminal.attach(seat, offsets, replay)
        seat.write(job.terminal.input_state())
        ended = asyncio.create_task(job.ended.wait())
        try:
            if job.stopped:
                seat.write(requests.Stopped(job.stopped))
            while not (job.ended.is_set() and job.terminal.drained(seat)):
                heard = asyncio.create_task(channel.receive())
                try:
                    waits = {heard} if ended.done() else {heard, ended}
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    if heard.done():
                        self._heard(job, seat, heard.result())
                finally:
                    heard.cancel()
            text = (job.end.text or "the job is lost") if job.end and job.end.how is How.LOST else ""
            await channel.send(requests.JobEnded(job.status, text))
        finally:
            ended.cancel()
            job.terminal.detach(seat)

    def _heard(self, job: HomeJob, seat: Seat, message: Any) -> None:
        match message:
            case requests.Consumed():
                job.terminal.consumed(seat, message.stream, message.offset)
            case requests.Input():
                job.terminal.type(message.offset, message.data, message.eof)
            case requests.Resize():
                job.resize(message.rows, message.cols)
            case requests.SendSignal():
                if job.end is None and 1 <= message.signum <= 64:
                    job.terminal.signal(message.signum)
            case requests.CloseOutput():
                job.close_output(message.stream)
            case _:
                raise RemoteProtocolError("that does not belong to a terminal")

    async def _logs(self, message: requests.AskLogs, channel: Channel) -> None:
        job = self._here(message.job)
        sent: list[int] = []
        for name, log in job.terminal.logs.items():
            offset = log.floor
            while offset < log.end:
                data = log.read(offset, CHUNK)
                await channel.send(requests.Output(name, offset, data))
                # While the reader took its time the log may have been trimmed: what is gone reads as zeros.
                offset = max(offset + len(data), log.floor)
            sent.append(offset)
        if message.follow and not job.ended.is_set():
            # From where each was read to: what came since belongs to the reader, too.
            await self._terminal(job, channel, (sent[0], sent[1], sent[2]), 0)
