"""The connections that members made to us: never more than a fixed number.

Each member keeps at most `MAX_DIALS` connections of its own making, so in all there are at most n times that many, and
on average as many come in at a node as it makes itself.  That is an average: a node that all others happen to need
would hold n.  So beyond `MAX_INBOUND` the one that was silent longest is ended; its maker dials again when it has
something to say.  libzmq does not tell who is connected: what is known comes from the messages.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import OrderedDict
from collections.abc import Callable

MAX_INBOUND = 256


class Inbound:
    """Descriptors of libzmq's by which members' messages came, the one silent longest first.

    They are libzmq's own and may be gone, or something else, by the time one is looked at: nothing is held open.
    `plain` writes an address as packets have it.
    """

    def __init__(self, plain: Callable[[str], str], most: int = MAX_INBOUND) -> None:
        self.most = most
        self.ports: frozenset[int] = frozenset()  # those we listen on
        self._plain = plain
        self._hosts: OrderedDict[int, str] = OrderedDict()

    def heard(self, fd: int, host: str) -> None:
        """A message came from `host` by this descriptor."""
        if fd in self._hosts:
            self._hosts.move_to_end(fd)
        self._hosts[fd] = host
        while len(self._hosts) > self.most:
            old, old_host = self._hosts.popitem(last=False)
            connection = self._still(old, old_host)
            if connection:
                with connection, contextlib.suppress(OSError):
                    # Of the connection; to close libzmq's own descriptor would crash it.
                    connection.shutdown(socket.SHUT_RDWR)

    def count(self) -> int:
        """How many are open now."""
        for fd, host in tuple(self._hosts.items()):
            connection = self._still(fd, host)
            if connection:
                connection.close()
            else:
                del self._hosts[fd]
        return len(self._hosts)

    def _still(self, fd: int, host: str) -> socket.socket | None:
        """A copy of the descriptor, if it is a connection from `host` to one of our ports."""
        try:
            copy = socket.socket(fileno=os.dup(fd))
        except OSError:
            return None
        with contextlib.suppress(OSError):
            inet = copy.family in (socket.AF_INET, socket.AF_INET6)
            if inet and copy.getsockname()[1] in self.ports and self._plain(copy.getpeername()[0]) == host:
                return copy
        copy.close()
        return None
