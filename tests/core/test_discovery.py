"""Marks that only members recognise, and the order in which a member's addresses are tried."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from omcore.discovery.book import MAX_HINTS, MAX_TRIED, AddressBook
from omcore.discovery.lan import Near, announced, usable
from omcore.discovery.marks import HASHES_S, HOUR_S, Recogniser, mark
from omcore.discovery.openmosix import parse_map
from omcore.transport.addresses import InterfaceEntry
from omcore.types import NodeId, NodeInfo

NOW = 1_800_000_000.0
HOUR = int(NOW) // HOUR_S


def key(number: int) -> NodeId:
    return NodeId(f"{number:064x}")


def info(number: int, *addresses: str, serial: int = 0) -> NodeInfo:
    return NodeInfo(key(number), number, f"n{number}", addresses, serial=serial)


def infos(*some: NodeInfo) -> dict[NodeId, NodeInfo]:
    return {one.id: one for one in (info(1), *some)}


# -- marks


@given(st.integers(0, 2**256 - 1), st.integers(0, 10**9), st.text("0123456789abcdef", min_size=1, max_size=16))
def test_a_mark_tells_nothing_and_differs_with_key_hour_and_start(number: int, hour: int, label: str) -> None:
    node = key(number)
    own = mark(node, hour, label)
    assert len(own) == 20
    others = {mark(node, hour + 1, label), mark(node, hour, label + "0"), mark(key(number ^ 1), hour, label)}
    assert own not in others
    assert len(others) == 3


def test_members_recognise_each_other_with_clocks_an_hour_apart() -> None:
    known = Recogniser()
    known.set_keys([key(1), key(2)])
    for skew in (-1, 0, 1):
        assert known.find(mark(key(2), HOUR + skew, "ab"), "ab", NOW) == key(2)
    assert known.find(mark(key(2), HOUR + 2, "ab"), "ab", NOW) is None
    assert known.find(mark(key(3), HOUR, "ab"), "ab", NOW) is None
    assert known.find(mark(key(2), HOUR, "ab"), "cd", NOW) is None  # repeated under another label
    for odd in ("", "x" * 20, "é" * 10, "0" * 10_000):
        assert known.find(odd, "ab", NOW) is None


def test_a_flood_of_announcements_is_looked_at_now_and_then_only() -> None:
    known = Recogniser()
    known.set_keys([key(number) for number in range(1000)])
    looked = sum(known.find(mark(key(999), HOUR, "ab"), "ab", NOW) is not None for _ in range(100))
    assert 0 < looked <= HASHES_S / 3000
    assert known.find(mark(key(999), HOUR, "ab"), "ab", NOW + 1) == key(999)
    known.set_keys([key(number) for number in range(20_000)])
    assert known.find(mark(key(5), HOUR, "ab"), "ab", NOW + 60) == key(5)


def test_only_addresses_of_our_own_kind_are_dialled() -> None:
    heard = ["10.0.0.5", "8.8.8.8", "127.0.0.1", "224.0.0.1", "0.0.0.0", "fd00::5", "no"]
    assert usable(heard, 7, ["192.168.1.1"]) == ("10.0.0.5:7",)
    assert usable(heard, 7, ["127.0.0.1"]) == ("127.0.0.1:7",)
    assert usable(heard, 7, ["fd00::1"]) == ("[fd00::5]:7",)
    assert usable(heard, 7, ["1.1.1.1"]) == ("8.8.8.8:7",)
    assert usable(heard, 0, ["192.168.1.1"]) == ()
    assert len(usable([f"10.0.0.{n}" for n in range(200)], 7, ["10.0.0.1"])) == 4


def test_an_announcement_has_one_port() -> None:
    listening = ("10.0.0.1:4632", "[fd00::1]:4632", "10.0.0.1:4633", "0.0.0.0:4632")
    assert announced(listening) == (("10.0.0.1", "fd00::1"), 4632)


def test_only_what_comes_from_our_own_networks_is_heard() -> None:
    entries = [
        InterfaceEntry("lo", 1, "127.0.0.1", 8),
        InterfaceEntry("eth0", 2, "10.0.0.1", 24),
        InterfaceEntry("eth1", 3, "192.168.7.1", 24),
        InterfaceEntry("eth0", 2, "fd00::1", 64),
        InterfaceEntry("eth0", 2, "fe80::1", 64),
    ]
    near = Near(["10.0.0.1", "fd00::1"], entries)
    assert near.holds(("10.0.0.77", 5353))
    assert near.holds(("fd00::77", 5353, 0, 0))
    assert near.holds(("fe80::9%eth0", 5353, 0, 2))
    far = [("192.168.7.2", 5353), ("127.0.0.1", 5353), ("fd01::1", 5353, 0, 0), ("fe80::9", 5353, 0, 3), ("no", 1)]
    assert not any(near.holds(sender) for sender in far)
    assert Near(["127.3.0.1"], entries).holds(("127.9.9.9", 5353))


# -- the book


def test_what_a_node_says_itself_comes_first() -> None:
    book = AddressBook(["10.0.0.9:1"], parse_map("2 10.0.0.2 1", "map"), 4632)
    book.hint(key(2), ["10.0.0.3:7"])
    tried = book.dialled(infos(info(2, "10.0.0.4:1", serial=5)), key(1))
    assert tried == {key(2): ("10.0.0.4:1", "10.0.0.3:7", "10.0.0.2:4632")}


def test_who_was_never_heard_is_sought_at_every_address_nobody_claims() -> None:
    book = AddressBook(["10.0.0.9:1", "10.0.0.8:1"], parse_map("3 10.0.0.3 1\n3 10.1.0.3 ALIAS", "map"), 4632)
    tried = book.dialled(infos(info(2, "10.0.0.9:1", serial=5), info(3)), key(1))
    assert tried[key(3)][:2] == ("10.0.0.3:4632", "10.1.0.3:4632")
    assert set(tried[key(3)]) == {"10.0.0.3:4632", "10.1.0.3:4632", "10.0.0.8:1"}
    assert tried[key(2)] == ("10.0.0.9:1",)


def test_a_long_list_is_tried_in_pieces_and_not_by_all_from_the_same_end() -> None:
    book = AddressBook([f"10.0.{n // 200}.{n % 200}:1" for n in range(1000)])
    tried = book.dialled(infos(info(2), info(3)), key(1))
    assert all(len(addresses) == MAX_TRIED for addresses in tried.values())
    assert tried[key(2)][0] != tried[key(3)][0]


def test_a_name_is_dialled_once_it_was_looked_up() -> None:
    book = AddressBook(["birch:4632", "[fd00::5]:1"], parse_map("2 cedar 1\n3 10.0.0.3 1", "map"), 4000)
    assert book.names == ("birch:4632", "cedar:4000")
    assert book.dialled(infos(info(2)), key(1))[key(2)] == ("[fd00::5]:1", "10.0.0.3:4000")
    assert book.resolved("cedar:4000", ["10.0.0.2:4000"])
    assert not book.resolved("cedar:4000", ["10.0.0.2:4000"])
    assert book.dialled(infos(info(2, serial=1)), key(1))[key(2)] == ("10.0.0.2:4000",)


def test_hints_are_few_and_go_with_their_node() -> None:
    book = AddressBook()
    assert book.hint(key(2), ["10.0.0.2:1"])
    assert not book.hint(key(2), ["10.0.0.2:1"])
    for number in range(20):
        book.hint(key(2), [f"10.0.1.{number}:1"])
    hints = book.dialled(infos(info(2)), key(1))[key(2)]
    assert len(hints) == MAX_HINTS
    assert hints[0] == "10.0.1.19:1"
    book.dialled(infos(), key(1))
    assert book.dialled(infos(info(2)), key(1))[key(2)] == ()
