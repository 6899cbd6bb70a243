"""Dialling while what is known of a peer changes."""

from __future__ import annotations

from omcore.transport.base import Failure
from omcore.transport.zmq_transport import ZmqTransport
from omcore.trust.keys import generate_node_key


async def test_a_peer_that_takes_back_its_addresses_while_it_is_dialled() -> None:
    now = 100.0
    peer = generate_node_key().id
    transport = ZmqTransport(generate_node_key(), clock=lambda: now)
    failures: list[Failure] = []
    transport.on_failed = failures.append
    await transport.start()
    try:
        transport.set_peers({peer: ("192.0.2.1:9",)})  # nobody lives there
        assert transport.send(peer, b"hello")
        transport.set_peers({peer: ()})
        now += 60.0
        assert not transport.send(peer, b"hello")
        assert [failure.node for failure in failures] == [peer]
    finally:
        await transport.close()
