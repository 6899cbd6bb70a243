"""One question with a key of one's own: how a newcomer joins before it is anybody's peer."""

from __future__ import annotations

import asyncio
import socket
import time

import zmq

from omcore.errors import NotTrusted, OmError, PeerUnreachable
from omcore.transport.sockets import client_socket, endpoint, new_context, next_event, watch
from omcore.trust.invites import accept_joined, check_token, make_join
from omcore.trust.keys import NodeKey
from omcore.trust.state import State
from omcore.trust.tokens import Token, join_address, split_address
from omcore.types import NodeId


async def ask_once(address: str, server: NodeId, key: NodeKey, data: bytes, timeout: float = 10.0) -> bytes:
    """Dial `address`, send `data`, return the first answer. Cancelling leaves a thread for at most `timeout` seconds.

    Raises NotTrusted when the other end refused the key (used or expired), PeerUnreachable for silence, a wrong
    identity, or a connection that was cut.
    """
    return await asyncio.to_thread(_ask, address, server, key, data, timeout)


def _ask(address: str, server: NodeId, key: NodeKey, data: bytes, timeout: float) -> bytes:
    context = new_context()
    dealer = client_socket(context, key, server)
    monitor = watch(context, dealer)
    try:
        try:
            dealer.connect(endpoint(_numeric(address)))
        except (zmq.ZMQError, OSError) as error:
            raise PeerUnreachable(f"{address}: {error.strerror}") from error
        dealer.send(data)
        return _wait(address, dealer, monitor, time.monotonic() + timeout)
    finally:
        dealer.disable_monitor()
        monitor.close(0)
        dealer.close(0)
        context.term()


def _numeric(address: str) -> str:
    # libzmq says nothing at all when a name cannot be resolved
    host, port = split_address(address)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return join_address(str(found[0][4][0]), port)


def _wait(address: str, dealer: zmq.Socket[bytes], monitor: zmq.Socket[bytes], deadline: float) -> bytes:
    poller = zmq.Poller()
    poller.register(dealer, zmq.POLLIN)
    poller.register(monitor, zmq.POLLIN)
    up = False
    while (left := deadline - time.monotonic()) > 0:
        ready = dict(poller.poll(int(left * 1000) + 1))
        if dealer in ready:
            return dealer.recv()
        while event := next_event(monitor, up):
            up = up or event.up
            if event.refused:
                raise NotTrusted(
                    f"{address} refused the token's key", "it was used or has expired: ask for a new one, omview invite"
                )
            if not event.up:
                raise PeerUnreachable(f"{address}: {event.text}", "is that machine up, and the token for this cluster?")
    raise PeerUnreachable(f"{address} did not answer", "is omview running there?")


async def join(
    state: State, token: Token, name: str, version: str, addresses: tuple[str, ...], now: float, timeout: float = 10.0
) -> str:
    """Use an invitation: become a member of the token's cluster and save its roster in `state`.

    Tries the token's addresses in order; returns the one that answered (the inviter's). `now`: wall-clock seconds.
    Raises UsageError, NotTrusted, PeerUnreachable; then `state` is as it was.
    """
    check_token(token, state.roster, now)
    question = make_join(state.key, name, version, addresses)
    failure: OmError = PeerUnreachable("the token names no address")
    for address in token.addresses:
        try:
            answer = await ask_once(address, token.inviter, token.key, question, timeout)
        except PeerUnreachable as error:
            failure = error
            continue
        state.adopt(accept_joined(token, answer, state.me, now))
        return address
    raise failure
