"""Turns of the cluster key, rival turns, and the heads of the roster, without a network."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust import rotation
from omcore.trust.heads import HEAD_BYTES, Head, parse_head, sign_head, verify_head
from omcore.trust.invites import Joined, accept_joined, encode, handle_join
from omcore.trust.keys import (
    NEXT_CLUSTER_KEY,
    ClusterKey,
    generate_cluster_key,
    generate_node_key,
    store_next_cluster_key,
)
from omcore.trust.passes import Grant, Role, sign
from omcore.trust.provision import admit_remote, install_bundle
from omcore.trust.roster import Roster
from omcore.trust.state import open_state
from omcore.trust.tokens import parse_token
from omcore.trust.turns import TURN_BYTES, parse_turn, sign_turn, verify_turn
from omcore.types import NodeId

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def keys() -> list[ClusterKey]:
    return [generate_cluster_key() for _ in range(4)]


@pytest.fixture(scope="module")
def nodes() -> list[NodeId]:
    return [generate_node_key().id for _ in range(4)]


@pytest.fixture
def roster(keys: list[ClusterKey], nodes: list[NodeId]) -> Roster:
    made = Roster.new(keys[0].public)
    for node in nodes[:3]:
        made.admit(keys[0], node, nodes[0], NOW, keyholder=node == nodes[0])
    made.forget(keys[0], nodes[2], nodes[0], NOW)
    return made


def copy_of(roster: Roster) -> Roster:
    made = Roster(roster.cluster, roster.first_public)
    made.merge_turns(roster.rotation.export(), NOW)
    made.merge(roster.export())
    return made


# -- one turn


def test_a_turn_has_210_bytes_and_both_signatures_count(keys: list[ClusterKey]) -> None:
    cluster = bytes(16)
    turn = sign_turn(keys[0], keys[1], cluster, 1, NOW)
    assert len(turn.raw) == TURN_BYTES == 210
    assert turn.raw[:8] == b"OMVTURN1"
    assert parse_turn(turn.raw) == turn
    verify_turn(turn, cluster, keys[0].public)
    for at in range(TURN_BYTES):
        raw = bytearray(turn.raw)
        raw[at] ^= 1
        with pytest.raises((NotTrusted, RemoteProtocolError)):
            verify_turn(parse_turn(bytes(raw)), cluster, keys[0].public)
    half = ClusterKey(keys[1].public, keys[2].secret)  # names a key whose secret it lacks
    with pytest.raises(NotTrusted):
        verify_turn(sign_turn(keys[0], half, cluster, 1, NOW), cluster, keys[0].public)
    with pytest.raises(NotTrusted):
        verify_turn(turn, cluster, keys[2].public)


def test_all_entries_are_signed_anew_and_the_old_key_ends(
    roster: Roster, keys: list[ClusterKey], nodes: list[NodeId]
) -> None:
    members = roster.members(NOW)
    roster.rotate(keys[0], keys[1], nodes[0], NOW)
    assert roster.members(NOW) == members
    assert roster.removals == 1
    assert (roster.epoch, roster.cluster_public) == (1, keys[1].public)
    assert roster.keyholders(NOW) == (nodes[0],)
    with pytest.raises(NotTrusted):
        roster.admit(keys[0], nodes[3], nodes[0], NOW)
    late = sign(keys[0], roster.cluster, Grant(nodes[3], 9, Role.WORK, 99, int(NOW), bytes(16)))
    assert roster.merge(late.raw)  # the old key counts as well, for a while
    assert roster.is_member(nodes[3], NOW)
    digest = roster.digest()
    assert roster.close_turn()
    assert not roster.close_turn()
    assert roster.digest() == digest
    assert not roster.is_member(nodes[3], NOW)
    assert roster.merge(late.raw) == ()
    assert roster.members(NOW) == members


def test_who_hears_turn_and_entries_in_any_order_ends_alike(
    roster: Roster, keys: list[ClusterKey], nodes: list[NodeId]
) -> None:
    old = roster.export()
    other = copy_of(roster)
    first = roster.rotate(keys[0], keys[1], nodes[0], NOW)
    with pytest.raises(NotTrusted, match="has not heard of"):
        other.merge(roster.export())
    assert other.merge_turns(first.raw, NOW)
    assert not other.merge_turns(first.raw, NOW)
    assert {member.id for member in other.members(NOW)} == set(nodes[:2])  # by the old entries, until the new ones come
    second = roster.rotate(keys[1], keys[2], nodes[0], NOW)
    pieces = [old, first.raw, second.raw, roster.export()]
    rng = random.Random(3)
    for _ in range(5):
        rng.shuffle(pieces)
        late = Roster(roster.cluster, roster.first_public)
        for _ in range(3):  # lost and repeated, as news are
            for piece in pieces:
                try:
                    if len(piece) == TURN_BYTES:
                        late.merge_turns(piece, NOW)
                    else:
                        late.merge(piece)
                except NotTrusted:
                    pass
        late.close_turn()
        assert late.digest() == roster.digest()
        assert late.members(NOW) == roster.members(NOW)


def test_the_same_turn_from_many_at_once_is_one_turn(
    roster: Roster, keys: list[ClusterKey], nodes: list[NodeId], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_of(roster)
    turn = roster.rotate(keys[0], keys[1], nodes[0], NOW)
    together = threading.Barrier(2)

    def slow(*arguments: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # where two may be in here at once, they are
        verify_turn(*arguments)

    monkeypatch.setattr(rotation, "verify_turn", slow)
    with ThreadPoolExecutor(2) as pool:
        news = list(pool.map(lambda raw: other.merge_turns(raw, NOW), [turn.raw] * 2))
    assert sorted(news) == [False, True]
    assert (other.epoch, other.rotation.choice) == (1, ())


def test_the_chain_survives_a_restart_and_an_altered_one_does_not(
    tmp_path: Path, keys: list[ClusterKey], nodes: list[NodeId]
) -> None:
    home = tmp_path / "s"
    state = open_state(home, NOW)
    key = state.cluster_key()
    assert key is not None
    store_next_cluster_key(home, keys[1])
    assert state.cluster_key() == key  # its time has not come
    state.roster.rotate(key, keys[1], state.me, NOW)
    state.roster.save(home)
    again = open_state(home, NOW)
    assert again.cluster_key() == keys[1]
    assert not (home / NEXT_CLUSTER_KEY).exists()
    assert open_state(home, NOW).cluster_key() == keys[1]
    assert again.roster.digest() == state.roster.digest()
    assert again.roster.open
    data = bytearray((home / "turns").read_bytes())
    data[data.index(b"OMVTURN1") + 30] ^= 1
    (home / "turns").write_bytes(data)
    with pytest.raises(NotTrusted):
        open_state(home, NOW)
    (home / "turns").write_bytes(b"\xc1")
    with pytest.raises(NotTrusted, match="damaged"):
        open_state(home, NOW)


def test_a_token_from_before_the_turns_is_good_after_them(tmp_path: Path, keys: list[ClusterKey]) -> None:
    inviter, newcomer = open_state(tmp_path / "a", NOW), open_state(tmp_path / "b", NOW)
    token = parse_token(inviter.invites.make(inviter.roster, inviter.me, ("127.0.0.1:1",), NOW), NOW)
    key = inviter.cluster_key()
    assert key is not None
    inviter.roster.rotate(key, keys[1], inviter.me, NOW)
    inviter.roster.rotate(keys[1], keys[2], inviter.me, NOW)
    from omcore.trust.invites import decode_join, make_join

    join = decode_join(make_join(newcomer.key, "b", "0", ()))
    answer = handle_join(inviter.roster, inviter.invites, keys[2], inviter.me, token.key.id, join, NOW)
    assert isinstance(answer, Joined)
    roster = accept_joined(token, encode(answer), newcomer.me, NOW)
    assert roster.cluster_public == keys[2].public
    assert roster.members(NOW) == inviter.roster.members(NOW)
    with pytest.raises(NotTrusted):
        accept_joined(token, encode(Joined(answer.entry, answer.cluster_public, answer.roster)), newcomer.me, NOW)


def test_over_ssh_the_turns_come_along(tmp_path: Path, keys: list[ClusterKey]) -> None:
    holder, new = open_state(tmp_path / "a", NOW), open_state(tmp_path / "b", NOW)
    key = holder.cluster_key()
    assert key is not None
    store_next_cluster_key(tmp_path / "a", keys[1])
    holder.roster.rotate(key, keys[1], holder.me, NOW)
    install_bundle(tmp_path / "b", admit_remote(holder, new.me, NOW), NOW)
    assert open_state(tmp_path / "b", NOW).roster.digest() == holder.roster.digest()


# -- two turns: SECURITY case 17


@pytest.fixture
def quarrel(roster: Roster, keys: list[ClusterKey], nodes: list[NodeId]) -> tuple[Roster, Roster]:
    """The owner's roster and the thief's, each with a turn of its own."""
    thief = copy_of(roster)
    roster.rotate(keys[0], keys[1], nodes[0], NOW)
    thief.rotate(keys[0], keys[2], nodes[1], NOW)
    return roster, thief


def test_two_turns_for_one_epoch_freeze_the_membership_everywhere(
    quarrel: tuple[Roster, Roster], keys: list[ClusterKey], nodes: list[NodeId]
) -> None:
    mine, thiefs = quarrel
    members = mine.members(NOW)
    assert mine.merge_turns(thiefs.rotation.export(), NOW)
    assert not mine.merge_turns(thiefs.rotation.export(), NOW)
    assert {turn.new for turn in mine.rotation.choice} == {keys[1].public, keys[2].public}
    for act in (
        lambda: mine.admit(keys[1], nodes[3], nodes[0], NOW),
        lambda: mine.forget(keys[1], nodes[1], nodes[0], NOW),
        lambda: mine.rotate(keys[1], keys[3], nodes[0], NOW),
    ):
        with pytest.raises(UsageError, match="frozen"):
            act()
    assert mine.merge(thiefs.export()) == ()
    assert mine.members(NOW) == members
    bystander = copy_of(mine)  # hears both at once
    assert len(bystander.rotation.choice) == 2


def test_accepting_ends_it_and_the_other_is_never_heard_again(
    quarrel: tuple[Roster, Roster], keys: list[ClusterKey], nodes: list[NodeId]
) -> None:
    mine, thiefs = quarrel
    right, wrong = mine.rotation.export(), thiefs.rotation.export()
    members = mine.members(NOW)
    for roster in quarrel:
        roster.merge_turns(right + wrong, NOW)
    word = parse_turn(right).fingerprint.lower().replace("-", " ")
    with pytest.raises(UsageError, match="none of the two"):
        mine.accept_turn("AAAA", NOW)
    for roster in quarrel:  # the second one had followed the thief
        assert roster.accept_turn(word, NOW).raw == right
        assert not roster.merge_turns(wrong, NOW)
        assert roster.rotation.choice == ()
    assert {member.id for member in thiefs.members(NOW)} == {member.id for member in members}
    thiefs.merge(mine.export())
    assert thiefs.digest() == mine.digest()
    assert mine.admit(keys[1], nodes[3], nodes[0], NOW)
    with pytest.raises(UsageError, match="no two new"):
        mine.accept_turn(word, NOW)


def test_a_quarrel_survives_a_restart(tmp_path: Path, keys: list[ClusterKey]) -> None:
    home = tmp_path / "s"
    state = open_state(home, NOW)
    key = state.cluster_key()
    assert key is not None
    for new in keys[1:3]:
        state.roster.merge_turns(sign_turn(key, new, state.roster.cluster, 1, NOW).raw, NOW)
    state.roster.save(home)
    again = open_state(home, NOW)
    assert again.roster.rotation.choice == state.roster.rotation.choice
    again.roster.accept_turn(again.roster.rotation.choice[1].fingerprint, NOW)
    again.roster.save(home)
    last = open_state(home, NOW)
    assert last.roster.rotation.choice == ()
    assert last.roster.cluster_public == keys[2].public
    assert last.roster.is_member(last.me, NOW)


# -- a node's new key, and heads


def test_a_new_node_key_keeps_number_role_and_office(
    roster: Roster, keys: list[ClusterKey], nodes: list[NodeId]
) -> None:
    gone, entry = roster.rekey(keys[0], nodes[0], nodes[3], NOW)
    assert gone.gone
    assert (entry.number, entry.role) == (1, Role.WORK)
    assert roster.keyholders(NOW) == (nodes[3],)
    for old, new in ((nodes[0], nodes[3]), (nodes[1], nodes[2]), (NodeId("9" * 64), NodeId("8" * 64))):
        with pytest.raises(UsageError):
            roster.rekey(keys[0], old, new, NOW)


def test_a_head_says_what_the_roster_is_and_cannot_be_forged(roster: Roster, keys: list[ClusterKey]) -> None:
    said = Head(roster.cluster, 0, True, roster.max_serial, len(roster), roster.digest(), int(NOW))
    head = sign_head(keys[0], said)
    assert len(head.raw) == HEAD_BYTES
    assert replace(head, raw=b"") == said
    verify_head(head, keys[0].public)
    for at in range(HEAD_BYTES):
        raw = bytearray(head.raw)
        raw[at] ^= 2
        with pytest.raises((NotTrusted, RemoteProtocolError)):
            verify_head(parse_head(bytes(raw)), keys[0].public)
    with pytest.raises(RemoteProtocolError):
        parse_head(head.raw[:-1])
    with pytest.raises(NotTrusted):
        verify_head(head, keys[1].public)
