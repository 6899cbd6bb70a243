"""Every kind of message between nodes, and between face and engine: there and back, and nothing else gets in."""

from __future__ import annotations

import contextlib
import math
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omcore import messages, requests
from omcore.errors import LocalProtocolError, RemoteProtocolError
from omcore.messages import PEER
from omcore.requests import CONTROL
from omcore.types import ClusterView, LoadSample, NodeId, NodeInfo, NodeState, NodeView, RunSpec, Series
from omcore.wire import MAX_PEER_BYTES, Codec, from_json, pack, to_json, unpack

CODECS = {"peer": PEER, "control": CONTROL}
KINDS = [(name, kind) for name, codec in CODECS.items() for kind in codec.kinds.values()]


def samples(kind: Any) -> st.SearchStrategy[Any]:
    return st.from_type(kind)


def no_nan() -> None:
    st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
    st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
    st.register_type_strategy(str, st.text(st.characters(codec="utf-8"), max_size=20))


no_nan()


@pytest.mark.parametrize(("name", "kind"), KINDS, ids=lambda part: getattr(part, "__name__", part))
def test_every_kind_comes_back_as_it_was(name: str, kind: type) -> None:
    @settings(max_examples=3, deadline=None, database=None)
    @given(samples(kind))
    def there_and_back(message: object) -> None:
        assert CODECS[name].decode(CODECS[name].encode(message)) == message

    there_and_back()


@given(st.sampled_from(list(CODECS.values())), st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes_are_a_message_or_refused(codec: Codec, data: bytes) -> None:  # SECURITY case 42
    try:
        message = codec.decode(data)
    except RemoteProtocolError:
        return
    assert type(message) in codec.kinds.values()


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_spoilt_message_is_a_message_or_refused(data: st.DataObject) -> None:  # SECURITY case 42
    view = ClusterView(NodeId("a" * 64), 1, "", "user", (node_view(0.5),), (), (), ())
    good = CONTROL.encode(view)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(st.sampled_from([good[:at], good[:at] + data.draw(st.binary(max_size=9)) + good[at + 1 :]]))
    with contextlib.suppress(RemoteProtocolError):
        CONTROL.decode(bad)


def node_view(load: float) -> NodeView:
    me = NodeId("a" * 64)
    return NodeView(me, 1, "ash", NodeState.UP, True, 0.0, LoadSample(load=load), NodeInfo(me, 1, "ash"))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_however_deep(number: float) -> None:
    flat = messages.Progressed("0" * 32, 0, 0, "ship", frozen_s=number)  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError, match="not finite"):
        PEER.decode(PEER.encode(flat))
    deep = ClusterView(NodeId("a" * 64), 1, "", "user", (node_view(number),), (), (), ())
    with pytest.raises(RemoteProtocolError, match="not finite"):
        CONTROL.decode(CONTROL.encode(deep))
    listed = requests.Histories((Series(1, 1.0, (0.5, None, number)),))
    with pytest.raises(RemoteProtocolError, match="not finite"):
        CONTROL.decode(bytes((5,)) + msgspec.msgpack.encode(listed))
    with pytest.raises(RemoteProtocolError, match="not finite"):
        unpack(pack({"a": [1.0, number]}), dict[str, list[float]])


@pytest.mark.parametrize("raw", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001])
def test_short_floats_are_looked_at_too(raw: int) -> None:
    with pytest.raises(RemoteProtocolError, match="not finite"):
        unpack(b"\x91\xca" + struct.pack(">I", raw), tuple[float])


def test_raw_bytes_that_look_like_nan_are_data() -> None:
    looks = struct.pack(">Bd", 0xCB, math.nan)
    assert PEER.decode(PEER.encode(messages.StreamIn("0" * 32, 0, looks))).data == looks  # type: ignore[arg-type]


def test_limits_hold_both_ways() -> None:
    with pytest.raises(LocalProtocolError, match="over the limit"):
        PEER.encode(messages.RosterPage(bytes(MAX_PEER_BYTES), 1))
    for data in (b"", bytes(MAX_PEER_BYTES + 1), b"\xff", b"\x01"):
        with pytest.raises(RemoteProtocolError):
            PEER.decode(data)
    with pytest.raises(LocalProtocolError, match="not in this table"):
        PEER.encode("text")


def test_text_that_is_no_text_is_refused_where_it_is_made() -> None:
    with pytest.raises(LocalProtocolError, match="cannot be sent"):
        CONTROL.encode(requests.Run(RunSpec(("\udcff",), "/", ())))


def test_a_buffer_decodes_like_bytes() -> None:
    data = PEER.encode(messages.AskRoster(7))
    assert PEER.decode(memoryview(data)) == PEER.decode(data) == messages.AskRoster(7)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[1]", b'{"a": "x"}'])
def test_json_of_another_shape_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        from_json(data, dict[str, int])
    assert from_json(to_json({"a": 1}), dict[str, int]) == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xa1\xff", b"\x91" * 3000])
def test_packed_values_of_another_shape_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        unpack(data, list[Any])


def test_every_message_is_frozen() -> None:
    for _, kind in KINDS:
        if issubclass(kind, msgspec.Struct):
            assert kind.__struct_config__.frozen, kind
        else:
            assert vars(kind)["__dataclass_params__"].frozen, kind
