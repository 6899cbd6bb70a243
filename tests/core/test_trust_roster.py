import random
from pathlib import Path

import pytest

from omcore.errors import NotTrusted, RemoteProtocolError, UsageError
from omcore.trust import roster as roster_module
from omcore.trust.keys import ClusterKey, generate_cluster_key, generate_node_key
from omcore.trust.passes import ENTRY_BYTES, Grant, Role, parse, sign
from omcore.trust.provision import admit_remote, install_bundle, provision
from omcore.trust.roster import Roster
from omcore.trust.state import open_state
from omcore.types import NodeId

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def key() -> ClusterKey:
    return generate_cluster_key()


@pytest.fixture
def roster(key: ClusterKey) -> Roster:
    return Roster.new(key.public)


@pytest.fixture(scope="module")
def nodes() -> list[NodeId]:
    return [generate_node_key().id for _ in range(4)]


def test_entry_has_168_bytes_and_survives_a_round_trip(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    entry = roster.admit(key, nodes[0], nodes[0], NOW, keyholder=True)
    assert len(entry.raw) == ENTRY_BYTES == 168
    assert entry.raw[:8] == b"OMVPASS1"
    assert parse(entry.raw) == entry
    assert roster.members(NOW) == ((nodes[0], 1, Role.WORK),)
    assert roster.keyholders(NOW) == (nodes[0],)


def test_removal_wins_and_an_old_pass_replayed_is_ignored(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    # SECURITY case 11
    admitted = roster.admit(key, nodes[1], nodes[0], NOW)
    gone = roster.forget(key, nodes[1], nodes[0], NOW)
    assert roster.merge(admitted.raw) == ()
    assert not roster.is_member(nodes[1], NOW)
    other = Roster.new(key.public)
    assert [e.raw for e in other.merge(gone.raw + admitted.raw)] == [gone.raw]
    again = roster.admit(key, nodes[1], nodes[0], NOW)
    assert again.number == admitted.number
    assert roster.is_member(nodes[1], NOW)


def test_at_equality_the_removal_wins(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    grant = Grant(nodes[0], 1, Role.WORK, 7, int(NOW), bytes(16))
    here = sign(key, roster.cluster, grant)
    gone = sign(key, roster.cluster, Grant(nodes[0], 1, Role.WORK, 7, int(NOW), bytes(16), gone=True))
    roster.merge(here.raw + gone.raw)
    assert not roster.is_member(nodes[0], NOW)
    new = generate_cluster_key()
    roster.rotate(key, new, nodes[1], NOW)
    newer = sign(new, roster.cluster, Grant(nodes[0], 1, Role.WORK, 99, int(NOW), bytes(16), epoch=1))
    older = sign(key, roster.cluster, Grant(nodes[0], 1, Role.WORK, 100, int(NOW), bytes(16)))
    roster.merge(newer.raw + older.raw)
    assert roster.is_member(nodes[0], NOW)
    assert roster.entry(nodes[0]) == newer


def test_any_order_of_entries_gives_the_same_roster(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    entries = [roster.admit(key, node, nodes[0], NOW).raw for node in nodes]
    entries += [roster.forget(key, nodes[2], nodes[0], NOW).raw, roster.admit(key, nodes[2], nodes[0], NOW).raw]
    rng = random.Random(4)
    for _ in range(10):
        rng.shuffle(entries)
        other = Roster.new(key.public)
        for raw in entries:
            other.merge(raw)
        assert other.digest() == roster.digest()
        assert other.members(NOW) == roster.members(NOW)


def test_forged_altered_and_foreign_entries_change_nothing(
    roster: Roster, key: ClusterKey, nodes: list[NodeId]
) -> None:  # SECURITY case 11
    good = roster.admit(key, nodes[0], nodes[0], NOW)
    before = roster.digest()
    stranger = generate_cluster_key()
    forged = sign(stranger, roster.cluster, Grant(nodes[1], 2, Role.WORK, 9, int(NOW), bytes(16)))
    foreign = sign(stranger, Roster.new(stranger.public).cluster, Grant(nodes[1], 2, Role.WORK, 9, 0, bytes(16)))
    altered = sign(key, roster.cluster, Grant(nodes[1], 2, Role.LOOK, 9, int(NOW), bytes(16))).raw
    for position in range(ENTRY_BYTES):
        raw = bytearray(altered)
        raw[position] ^= 1
        with pytest.raises((NotTrusted, RemoteProtocolError)):
            roster.merge(good.raw + bytes(raw))
    for bad in (forged.raw, foreign.raw, good.raw[:-1], altered + b"x"):
        with pytest.raises((NotTrusted, RemoteProtocolError)):
            roster.merge(bad)
    assert roster.digest() == before
    assert len(roster) == 1


def test_equal_numbers_are_resolved_the_same_everywhere(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    for serial, node in ((2, nodes[0]), (1, nodes[1])):
        roster.merge(sign(key, roster.cluster, Grant(node, 5, Role.WORK, serial, int(NOW), bytes(16))).raw)
    assert {m.id: m.number for m in roster.members(NOW)} == {nodes[1]: 5, nodes[0]: 0}
    roster.renumber(key, NOW)
    assert {m.id: m.number for m in roster.members(NOW)} == {nodes[1]: 5, nodes[0]: 6}


def test_expired_pass_admits_nobody(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    grant = Grant(nodes[0], 1, Role.WORK, 1, int(NOW), bytes(16), expires=int(NOW) + 60)
    roster.merge(sign(key, roster.cluster, grant).raw)
    assert roster.is_member(nodes[0], NOW + 59)
    assert not roster.is_member(nodes[0], NOW + 60)
    assert roster.members(NOW + 60) == ()


def test_only_this_clusters_key_signs(roster: Roster, nodes: list[NodeId]) -> None:
    with pytest.raises(NotTrusted):
        roster.admit(generate_cluster_key(), nodes[0], nodes[0], NOW)
    with pytest.raises(UsageError):
        roster.forget(generate_cluster_key(), nodes[0], nodes[0], NOW)


def test_pages_fit_a_message_and_can_be_merged_alone(roster: Roster, key: ClusterKey, nodes: list[NodeId]) -> None:
    for node in nodes:
        roster.admit(key, node, nodes[0], NOW)
    other = Roster.new(key.public)
    for page in roster.pages():
        assert len(page) <= 200_000
        other.merge(page)
    assert other.digest() == roster.digest()


def test_verified_file_is_not_verified_again_but_an_altered_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = open_state(tmp_path / "s", NOW)

    def never(*_: object) -> None:
        raise AssertionError("verified twice")

    with monkeypatch.context() as patch:
        patch.setattr(roster_module, "verify", never)
        assert open_state(tmp_path / "s", NOW).roster.digest() == state.roster.digest()
    (tmp_path / "s" / "roster.ok").unlink()
    assert open_state(tmp_path / "s", NOW).me == state.me
    path = tmp_path / "s" / "roster"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(NotTrusted, match="altered"):
        open_state(tmp_path / "s", NOW)


def test_first_run_is_a_cluster_of_one(tmp_path: Path) -> None:
    state = open_state(tmp_path / "deep" / "s", NOW)
    assert state.roster.members(NOW) == ((state.me, 1, Role.WORK),)
    assert state.cluster_key() is not None
    assert open_state(tmp_path / "deep" / "s", NOW).me == state.me
    assert {p.name for p in state.directory.iterdir()} == {"node.key", "cluster.key", "roster", "roster.ok"}
    assert all(p.stat().st_mode & 0o777 == 0o600 for p in state.directory.iterdir())


def test_provision_gives_the_cluster_key_to_the_first_only(tmp_path: Path) -> None:
    directories = [tmp_path / str(number) for number in range(3)]
    ids = provision(directories, NOW)
    states = [open_state(directory, NOW) for directory in directories]
    assert tuple(state.me for state in states) == ids
    assert len({state.roster.digest() for state in states}) == 1
    assert [member.number for member in states[2].roster.members(NOW)] == [1, 2, 3]
    assert [state.cluster_key() is not None for state in states] == [True, False, False]
    secret = (directories[0] / "cluster.key").read_bytes()[40:72]
    for directory in directories[1:]:
        assert all(secret not in path.read_bytes() for path in directory.iterdir())
    with pytest.raises(UsageError):
        provision(directories, NOW)


def test_adding_over_ssh_moves_no_secret(tmp_path: Path) -> None:
    holder, new = open_state(tmp_path / "a", NOW), open_state(tmp_path / "b", NOW)
    bundle = admit_remote(holder, new.me, NOW)
    assert holder.key.secret not in bundle
    assert new.key.secret not in bundle
    assert install_bundle(tmp_path / "b", bundle, NOW) == new.me
    joined = open_state(tmp_path / "b", NOW)
    assert joined.roster.digest() == holder.roster.digest()
    assert joined.cluster_key() is None
    assert not (tmp_path / "b" / "cluster.key").exists()
    with pytest.raises(UsageError, match="cluster"):
        install_bundle(tmp_path / "b", admit_remote(open_state(tmp_path / "c", NOW), new.me, NOW), NOW)
