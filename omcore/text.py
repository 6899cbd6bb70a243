"""The one sanitiser: every foreign string passes here before it may meet a terminal, a log or a message.

Foreign is all that somebody else can choose: command lines, names of processes, users, nodes, hosts and jobs,
paths, error texts of peers.
"""

from __future__ import annotations

import unicodedata

NODE_LIMIT = 64
USER_LIMIT = 32
COMMAND_LIMIT = 4096

_MARKS_IN_A_ROW = 4  # more of them climb over neighbouring lines


def clean(s: str, limit: int) -> str:
    """Make a foreign string harmless to show: at most `limit` characters, all of them printable.

    What `str.isprintable()` refuses (ESC, C1, BEL, tab, newline, bidi and zero-width controls, surrogates,
    tags) becomes ``\\xNN``, ``\\uNNNN`` or ``\\UNNNNNNNN``; of combining marks at most four in a row stay.
    What is too long is cut and ends in "…". Work is bounded by `limit` (> 0), not by the length of `s`.
    """
    too_long = len(s) > limit
    if too_long:
        s = s[:limit]
    if not s.isprintable():
        s = "".join(c if c.isprintable() else _escaped(c) for c in s)
    if not s.isascii():
        s = _fewer_marks(s)
    if too_long or len(s) > limit:
        return s[: limit - 1] + "…"
    return s


def _escaped(c: str) -> str:
    code = ord(c)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _fewer_marks(s: str) -> str:
    kept: list[str] = []
    marks = 0
    for c in s:
        # Latin text is most of what comes here; the first combining mark of Unicode is U+0300.
        if c >= "\u0300" and unicodedata.category(c)[0] == "M":
            marks += 1
            if marks > _MARKS_IN_A_ROW:
                continue
        else:
            marks = 0
        kept.append(c)
    return "".join(kept)
