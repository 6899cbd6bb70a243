from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust.invites import (
    Invites,
    Join,
    Joined,
    JoinRefused,
    NeedsKeyholder,
    accept_joined,
    check_token,
    decode_join,
    encode,
    handle_join,
    make_join,
)
from omcore.trust.keys import generate_node_key
from omcore.trust.passes import Role
from omcore.trust.provision import provision
from omcore.trust.state import State, open_state
from omcore.trust.tokens import make_token, parse_token, split_address
from omcore.types import NodeId

NOW = 1_800_000_000.0
ADDRESSES = ("192.168.1.5:4632",)


@pytest.fixture
def inviter(tmp_path: Path) -> State:
    return open_state(tmp_path / "inviter", NOW)


@pytest.fixture
def newcomer(tmp_path: Path) -> State:
    return open_state(tmp_path / "newcomer", NOW)


def invite(state: State, role: Role = Role.WORK) -> str:
    return state.invites.make(state.roster, state.me, ADDRESSES, NOW, role=role)


def ask(inviter: State, token: str, node: NodeId, now: float = NOW) -> Joined | JoinRefused | NeedsKeyholder:
    invitation = parse_token(token, NOW).key.id
    join = Join(1, node, "new", "0.1.0", ())
    return handle_join(inviter.roster, inviter.invites, inviter.cluster_key(), inviter.me, invitation, join, now)


def test_token_with_one_address_has_136_characters(inviter: State) -> None:
    text = invite(inviter)
    assert len(text) == 136
    token = parse_token(f"  {text[:60]}\n{text[60:]} ", NOW)
    assert (token.cluster, token.inviter, token.addresses) == (inviter.roster.cluster, inviter.me, ADDRESSES)
    assert token.secret.hex() not in repr(token)
    assert inviter.invites.live(NOW) == {token.key.id}


def test_token_is_stored_nowhere(inviter: State) -> None:
    token = parse_token(invite(inviter), NOW)
    assert all(token.secret not in path.read_bytes() for path in inviter.directory.iterdir())


@given(st.lists(st.sampled_from(["10.0.0.1:1", "[fd00::1]:65535", "host.example:4632"]), min_size=1, max_size=8))
def test_addresses_survive(addresses: list[str]) -> None:
    text, token = make_token(bytes(16), generate_node_key().id, addresses, 2**32 - 1, Role.LOOK)
    assert parse_token(text, NOW) == token
    assert token.addresses == tuple(addresses)


def test_expired_mistyped_and_other_clusters_tokens_get_three_sentences(inviter: State, tmp_path: Path) -> None:
    # SECURITY case 8
    text = invite(inviter)
    with pytest.raises(NotTrusted, match="expired"):
        parse_token(text, NOW + 15 * 60)
    for bad in (text[:-1], text[:50] + ("A" if text[50] != "A" else "B") + text[51:], "hello", "omv1.", "omv1.é"):
        with pytest.raises(UsageError, match="mistyped"):
            parse_token(bad, NOW)
    directories = [tmp_path / "x", tmp_path / "y"]
    provision(directories, NOW)
    member = open_state(directories[1], NOW)
    with pytest.raises(UsageError, match="another cluster"):
        check_token(parse_token(text, NOW), member.roster, NOW)
    own = parse_token(invite(open_state(directories[0], NOW)), NOW)
    with pytest.raises(UsageError, match="already a member"):
        check_token(own, member.roster, NOW)


@given(st.text(max_size=200))
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError):
        parse_token("omv1." + text, NOW)


def test_join_gives_a_roster_the_newcomer_can_check(inviter: State, newcomer: State) -> None:
    text = invite(inviter, Role.LOOK)
    answer = ask(inviter, text, newcomer.me)
    assert isinstance(answer, Joined)
    newcomer.adopt(accept_joined(parse_token(text, NOW), encode(answer), newcomer.me, NOW))
    again = open_state(newcomer.directory, NOW)
    assert again.roster.digest() == inviter.roster.digest()
    assert [(m.number, m.role) for m in again.roster.members(NOW)] == [(1, Role.WORK), (2, Role.LOOK)]
    assert again.cluster_key() is None


def test_second_node_is_refused_with_an_alarm_and_the_first_gets_the_same_answer(
    inviter: State, newcomer: State
) -> None:  # SECURITY case 7
    text = invite(inviter)
    first = ask(inviter, text, newcomer.me)
    assert isinstance(first, Joined)
    refused = ask(inviter, text, generate_node_key().id)
    assert isinstance(refused, JoinRefused)
    assert refused.alarm
    inviter.invites = Invites(inviter.directory)  # also after a restart
    assert ask(inviter, text, newcomer.me) == first
    assert len(inviter.roster.members(NOW)) == 2


def test_expired_invitation_and_other_protocol_are_refused(inviter: State, newcomer: State) -> None:
    text = invite(inviter)
    late = ask(inviter, text, newcomer.me, NOW + 901)
    assert isinstance(late, JoinRefused)
    assert "expired" in late.text
    assert inviter.invites.live(NOW + 901) == frozenset()
    invitation = parse_token(text, NOW).key.id
    odd = handle_join(
        inviter.roster, inviter.invites, None, inviter.me, invitation, Join(9, newcomer.me, "", "", ()), NOW
    )
    assert isinstance(odd, JoinRefused)
    assert "protocol" in odd.text


def test_inviter_without_the_cluster_key_asks_a_keyholder(tmp_path: Path, newcomer: State) -> None:
    directories = [tmp_path / "x", tmp_path / "y"]
    provision(directories, NOW)
    holder, member = (open_state(directory, NOW) for directory in directories)
    text = invite(member)
    assert ask(member, text, newcomer.me) == NeedsKeyholder(newcomer.me, Role.WORK)
    key = holder.cluster_key()
    assert key
    member.roster.merge(holder.roster.admit(key, newcomer.me, member.me, NOW).raw)
    assert isinstance(ask(member, text, newcomer.me), Joined)


def test_removed_node_comes_back_only_by_a_new_invitation(inviter: State, newcomer: State) -> None:
    text = invite(inviter)
    ask(inviter, text, newcomer.me)
    key = inviter.cluster_key()
    assert key
    inviter.roster.forget(key, newcomer.me, inviter.me, NOW)
    refused = ask(inviter, text, newcomer.me)
    assert isinstance(refused, JoinRefused)
    assert isinstance(ask(inviter, invite(inviter), newcomer.me), Joined)


def test_newcomer_refuses_an_answer_that_is_not_what_the_token_promised(
    inviter: State, newcomer: State, tmp_path: Path
) -> None:
    token = parse_token(invite(inviter), NOW)
    liar = open_state(tmp_path / "liar", NOW)
    other = ask(liar, invite(liar), newcomer.me)
    somebody_else = ask(inviter, invite(inviter), generate_node_key().id)
    assert isinstance(other, Joined)
    assert isinstance(somebody_else, Joined)
    mixed = Joined(other.entry, inviter.roster.cluster_public, b"")
    for answer in (other, somebody_else, mixed, JoinRefused("no")):
        with pytest.raises(NotTrusted):
            accept_joined(token, encode(answer), newcomer.me, NOW)
    with pytest.raises(RemoteProtocolError):
        accept_joined(token, b"\x93\x00", newcomer.me, NOW)


@given(st.binary(max_size=200))
def test_garbage_from_an_invitation_key_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_join(data)


def test_join_is_bounded() -> None:
    key = generate_node_key()
    assert decode_join(make_join(key, "n" * 500, "v", ("a:1",) * 99)).name == "n" * 64
    for bad in (Join(1, "zz", "", "", ()), Join(1, key.id, "n" * 65, "", ()), Join(1, key.id, "", "", ("a",) * 17)):
        with pytest.raises(RemoteProtocolError):
            decode_join(encode(bad))


@pytest.mark.parametrize("bad", ["", "host", "host:", ":1", "::1:5", "h:99999", "h:x"])
def test_addresses_that_make_no_sense(bad: str) -> None:
    with pytest.raises(UsageError):
        split_address(bad)
