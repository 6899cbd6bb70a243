"""Colours: the tokens of the design, the themes made of them, and `Paint`, which turns a token into a style.

A *spec* is what drawing code writes: a token and flags, `"busy"`, `"text b"`, `"calm:2/3"` (two thirds of the way
along the band that leads up to that colour); the ground is a token of its own.  No colour literal exists elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from rich.color import Color as RichColor
from rich.style import Style
from textual.color import Color
from textual.theme import Theme

_NAMES: Final = (
    "bg surface panel line text muted faint accent sel selrow own guest move calm busy hot bad mem sys busybar hotbar "
    "fill-calm fill-busy fill-hot fill-guest fill-mem"
).split()
_NIGHT: Final = (
    "#0b1117 #111a23 #182430 #26343f #dbe4ea #8fa1ad #627683 #62d6c4 #173f4a #13303a #5aa0ff #e2b6f7 #f5e3a1 #4e9fe0 "
    "#f4ae45 #f2614a #ff6b6b #58c3c9 #5d7586 #f4ae45 #f2614a #1b4568 #6a4a12 #74281c #4d3a5e #17474f"
).split()
_DAY: Final = (
    "#faf8f3 #f2efe7 #e7e3d8 #d0cabb #1d2a33 #55646e #7b868c #007466 #bfe3dc #d9ece7 #1463d8 #64277e #7d6a00 #3a80c0 "
    "#9c5600 #a82a12 #b81f2e #0b6f70 #8796a0 #d98a1a #cf3d20 #bcd9f0 #f8dfae #f2b9a4 #dccbf0 #b9dfe1"
).split()
_MONO: Final = (
    "#0c0c0c #141414 #1e1e1e #3a3a3a #dedede #a0a0a0 #787878 #ffffff #4a4a4a #303030 #b0b0b0 #e0e0e0 #ffffff #a0a0a0 "
    "#e8e8e8 #ffffff #ffffff #b0b0b0 #707070 #c8c8c8 #ffffff #404040 #707070 #909090 #505050 #404040"
).split()
_SIXTEEN: Final = tuple(int(n) for n in "0 0 0 8 7 7 8 14 4 4 12 13 11 12 11 9 9 14 8 11 9 12 11 9 13 14".split())
_BAND: Final = {
    "calm": "fill-calm",
    "busybar": "fill-busy",
    "hotbar": "fill-hot",
    "guest": "fill-guest",
    "mem": "fill-mem",
}
_NO_COLOUR_BOLD: Final = frozenset({"accent", "move", "busy", "hot", "bad", "busybar", "hotbar"})
_NO_COLOUR_DIM: Final = frozenset({"line", "faint", "sys"})

DEFAULT_THEME: Final = "om-night"
SIXTEEN_THEME: Final = "om-16"


def _theme(name: str, values: list[str], dark: bool = True) -> Theme:
    token = dict(zip(_NAMES, values, strict=True))
    return Theme(
        name=name,
        primary=token["accent"],
        secondary=token["own"],
        accent=token["move"],
        warning=token["busy"],
        error=token["bad"],
        success=token["accent"],
        foreground=token["text"],
        background=token["bg"],
        surface=token["surface"],
        panel=token["panel"],
        dark=dark,
        variables={f"om-{key}": value for key, value in token.items()},
    )


def _contrast() -> list[str]:
    changed = {"bg": "#000000", "faint": dict(zip(_NAMES, _NIGHT, strict=True))["muted"]}
    return [changed.get(name, value) for name, value in zip(_NAMES, _NIGHT, strict=True)]


THEMES: Final = (
    _theme("om-night", _NIGHT),
    _theme("om-day", _DAY, dark=False),
    _theme("om-contrast", _contrast()),
    Theme(
        name=SIXTEEN_THEME,
        primary="ansi_bright_cyan",
        secondary="ansi_bright_blue",
        accent="ansi_bright_yellow",
        warning="ansi_bright_yellow",
        error="ansi_bright_red",
        success="ansi_bright_cyan",
        foreground="ansi_white",
        background="ansi_black",
        surface="ansi_black",
        panel="ansi_black",
        boost="ansi_black",
        ansi=True,
        variables={
            "ansi-background": "ansi_black",
            "ansi-foreground": "ansi_white",
            "border-blurred": "ansi_black",
            "block-cursor-foreground": "ansi_black",
            "block-cursor-background": "ansi_white",
            "input-cursor-background": "ansi_white",
            "input-cursor-foreground": "ansi_black",
            "input-cursor-text-style": "reverse",
            "input-selection-background": "ansi_blue",
            "input-selection-foreground": "ansi_white",
            "screen-selection-background": "ansi_blue",
            "screen-selection-foreground": "ansi_white",
        },
    ),
    _theme("mono", _MONO),
)


def pick_theme(environ: Mapping[str, str]) -> str:
    """The theme that suits this terminal: sixteen colours where it has no more, or where NO_COLOR is set."""
    term = environ.get("TERM", "")
    many = "256" in term or "direct" in term or environ.get("COLORTERM", "") in {"truecolor", "24bit"}
    return DEFAULT_THEME if many and "NO_COLOR" not in environ else SIXTEEN_THEME


def needs_ascii(environ: Mapping[str, str]) -> bool:
    """Whether signs must be ASCII: the Linux console, or a locale that is not UTF-8."""
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    return environ.get("TERM", "") in {"linux", "vt100", "dumb"} or "utf" not in locale.lower()


def tokens_of(theme: Theme) -> dict[str, str]:
    """The token colours of any Textual theme: its own `om-…` variables, or the mapping of the design."""
    if "om-bg" in theme.variables:
        return {name: theme.variables[f"om-{name}"] for name in _NAMES}
    base = theme.to_color_system().generate()
    ground, text = Color.parse(base["background"]), Color.parse(base["foreground"])

    def mixed(share: float) -> str:
        return ground.blend(text, share).hex6

    def fill(name: str) -> str:
        return Color.parse(base[name]).blend(ground, 0.6).hex6

    primary, error, warning = base["primary"], base["error"], base["warning"]
    return {
        "bg": ground.hex6, "surface": base["surface"], "panel": base["panel"], "line": mixed(0.2),
        "text": text.hex6, "muted": mixed(0.68), "faint": mixed(0.48), "accent": primary,
        "sel": ground.blend(Color.parse(primary), 0.35).hex6, "selrow": ground.blend(Color.parse(primary), 0.2).hex6,
        "own": base["secondary"], "guest": base["accent"], "move": base["accent"], "calm": primary,
        "busy": warning, "hot": error, "bad": error, "mem": base["success"], "sys": mixed(0.4),
        "busybar": warning, "hotbar": error, "fill-calm": fill("primary"), "fill-busy": fill("warning"),
        "fill-hot": fill("error"), "fill-guest": fill("accent"), "fill-mem": fill("success"),
    }  # fmt: skip


class Paint:
    """Styles for specs in one theme; `paint(spec, ground)` is cached, so drawing costs a dictionary look-up."""

    def __init__(self, theme: Theme, *, no_color: bool = False, ascii_only: bool = False) -> None:
        self.ascii_only = ascii_only
        self.no_color = no_color
        self.sixteen = theme.ansi
        self._tokens = {} if theme.ansi else tokens_of(theme)
        self._cache: dict[tuple[str, str], Style] = {}

    def __call__(self, spec: str, ground: str) -> Style:
        """The Rich style for a spec such as `text b` on a ground such as `selrow`; "" is the plain ground."""
        style = self._cache.get((spec, ground))
        if style is None:
            style = self._cache[spec, ground] = self._make(spec, ground or "bg")
        return style

    def rgb(self, token: str) -> tuple[int, int, int]:
        """A token as three bytes, for plotext; the sixteen colours as the usual terminal shows them."""
        if self.sixteen:
            return tuple(RichColor.from_ansi(_SIXTEEN[_NAMES.index(token)]).get_truecolor())  # type: ignore[return-value]
        return Color.parse(self._tokens[token]).rgb

    def _make(self, spec: str, ground: str) -> Style:
        token, *flags = spec.split()
        bold, italic = "b" in flags, "i" in flags
        if self.sixteen and not self.no_color and token == "bg":
            bold = False  # many terminals draw bold black as grey
        chosen = ground in {"sel", "selrow", "accent"}
        if self.no_color:
            band = token.partition(":")[0]
            return Style(
                bold=bold or band in _NO_COLOUR_BOLD,
                dim=not chosen and band in _NO_COLOUR_DIM,
                italic=italic,
                reverse=chosen,
                underline="u" in flags,
            )
        return Style(
            color=self._ink(token, chosen),
            bgcolor=self._ground(ground),
            bold=bold,
            italic=italic,
            underline="u" in flags,
        )

    def _ground(self, ground: str) -> RichColor:
        if self.sixteen:
            return RichColor.from_ansi(_SIXTEEN[_NAMES.index("bg" if ground == "strip" else ground)])
        return RichColor.parse(self._tokens[ground])

    def _ink(self, token: str, chosen: bool) -> RichColor:
        name, _, part = token.partition(":")
        if self.sixteen:
            number = _SIXTEEN[_NAMES.index(name)]
            if chosen:  # red, amber and grey cannot be read on blue
                number = {9: 15, 11: 15, 8: 7, 12: 14}.get(number, number)
            return RichColor.from_ansi(number)
        colour = Color.parse(self._tokens[name])
        if part:
            step, of = (int(n) for n in part.split("/"))
            colour = Color.parse(self._tokens[_BAND[name]]).blend(colour, 0.5 + 0.5 * step / of)
        return RichColor.parse(colour.hex6)
