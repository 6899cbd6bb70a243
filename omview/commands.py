"""One table of everything that can be asked for: it gives the bindings, the footer, the help and the palette. Pure.

`when(situation)` returns "" if the command can work now, else the reason in words; `"-"` means: not here at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omcore.types import JobState, JobView, ProcView
from omview.model import job_label

ALL = ("cluster", "node", "processes", "migrations")
LISTS = ("node", "processes", "migrations")
HIDDEN = "-"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that decides whether a command can work now."""

    screen: str
    live: bool = True  # the engine answers
    nodes: int = 1
    node_name: str = ""
    job: JobView | None = None  # the job under the cursor
    home_name: str = ""
    proc: ProcView | None = None  # the process under the cursor
    rows: int = 0  # how many rows there are to move in
    filtered: bool = False
    undo: str = ""  # what `U` would bring back, "" nothing
    zoomed: bool = False
    toasts: bool = False
    moving: int = 0
    layout: str = ""  # of the nodes on Cluster: "cards" or "rows"
    cards_fit: bool = False
    typing: bool = False  # letters go into the filter
    heard: bool = True  # the node on which the job runs


When = Callable[[Situation], str]


def _always(_: Situation) -> str:
    return ""


def _live(now: Situation) -> str:
    return "" if now.live else "the engine does not answer"


def _job(now: Situation) -> str:
    """A job of one's own under the cursor, that can be acted on at all."""
    if now.job is None:
        return HIDDEN
    if not now.live:
        return "the engine does not answer"
    if now.job.state is JobState.ENDED:
        return "it has ended"
    if not now.heard:
        return "its node is not heard"
    return "it is moving" if now.job.state is JobState.MOVING else ""


def _migrate(now: Situation) -> str:
    if now.job is None:  # a process that is no job: `m` explains, so it stays pressable
        return "" if now.proc is not None and now.live else HIDDEN
    if now.nodes < 2:
        return "there is no other node"
    return "it is locked" if now.job.locked else _job(now)


def _home(now: Situation) -> str:
    if now.job is not None and now.job.node == now.job.home:
        return "it is at home"
    return _migrate(now) if now.job is not None else HIDDEN


def _kill(now: Situation) -> str:
    if now.job is None and (now.proc is None or now.proc.key.pid <= 0):
        return HIDDEN
    if now.job is not None and not now.heard:
        return "its node is not heard"
    return _live(now)


def _stop(now: Situation) -> str:
    return _job(now)


def _undo(now: Situation) -> str:
    return _live(now) if now.undo else "nothing was moved from here yet"


def _many(now: Situation) -> str:
    return "" if now.nodes > 1 else "there is one node only"


def _not_on(screen: str) -> When:
    return lambda now: HIDDEN if now.screen == screen else ""


def _cards(now: Situation) -> str:
    if now.layout == "cards":
        return HIDDEN
    return "" if now.cards_fit else "the window is too small for cards"


def _as_rows(now: Situation) -> str:
    return HIDDEN if now.layout == "rows" else ""


def _escape(now: Situation) -> str:
    return "" if now.filtered or now.zoomed or now.toasts else HIDDEN


def _rows(now: Situation) -> str:
    return "" if now.rows else HIDDEN


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that can be asked for."""

    id: str
    keys: tuple[str, ...]
    action: str
    label: str  # in the footer
    help: str  # in help and tooltips
    group: str  # "job", "node", "shown", "everywhere"
    screens: tuple[str, ...] = ALL
    when: When = _always
    rank: int = 0  # place in the footer, 1 first; 0: not shown there
    name: str = ""  # in the palette, with {job} {node} {home}; "" not there


COMMANDS: tuple[Command, ...] = (
    # on a job
    Command("job.details", ("enter",), "open", "details", "details: can it move?", "job", ("processes",), _rows, 1),
    Command("job.migrate", ("m",), "migrate", "migrate", "migrate: choose where", "job", LISTS, _migrate, 2, "Move {job} to …"),
    Command("job.home", ("h",), "home", "home", "bring it home", "job", LISTS, _home, 4, "Bring {job} home to {home}"),
    Command("job.lock", ("l",), "lock", "lock", "lock, unlock", "job", LISTS, _job, 3, "Lock or unlock {job}"),
    Command("job.stop", ("z",), "stop", "stop", "stop, go on", "job", LISTS, _stop, 0, "Stop {job}, or let it go on"),
    Command("job.kill", ("K", "f9"), "kill", "kill", "kill: choose the signal", "job", LISTS, _kill, 8, "Kill {job} …"),
    Command("job.undo", ("U",), "undo", "undo", "undo the last move", "job", ALL, _undo, 7, "Undo the last move{undo}"),
    Command("job.copy", ("ctrl+y",), "copy", "copy", "copy the command", "job", ("processes",), _rows, 0, "Copy the command"),
    # on a node
    Command("node.open", ("enter",), "open", "open node", "open this node", "node", ("cluster",), _rows, 1, "Open {node}"),
    Command("node.move", ("m",), "move_from", "move a job", "move a job from here", "node", ("cluster",), _live, 2, "Move a job off {node}"),
    Command("node.zoom", ("enter",), "open", "zoom chart", "zoom the load chart", "node", ("node",), _always, 5, "Zoom the load chart"),
    Command("node.chart", ("g",), "zoom", "big chart", "all nodes in one chart", "node", ("cluster",), _rows, 3, "Chart of all nodes"),
    # what is shown
    Command("show.filter", ("slash", "f4"), "filter", "filter", "filter, live", "shown", ("processes",), _always, 5, "Filter processes"),
    Command("show.order", ("o", "f6"), "order", "order", "order by the next column", "shown", ("processes",), _always, 6, "Order by the next column"),
    Command("show.reverse", ("O",), "reverse", "reverse", "reverse the order", "shown", ("processes",), _always, 0, "Reverse the order"),
    Command("show.tree", ("t", "f5"), "tree", "tree", "tree, flat", "shown", ("processes",), _always, 9, "Tree or flat list"),
    Command("show.jobs", ("v",), "jobs_only", "jobs only", "jobs only, all processes", "shown", ("processes",), _always, 7, "Jobs only, or all processes"),
    Command("show.side", ("e",), "side", "", "details pane, on and off", "shown", ("processes",), _always, 0, "Details beside the list"),
    Command("show.previous", ("left_square_bracket",), "node_before", "", "node before", "shown", ("processes", "node"), _many, 0),
    Command("show.next", ("right_square_bracket",), "node_after", "node", "node after", "shown", ("processes", "node"), _many, 10),
    Command("show.all", ("backslash",), "all_nodes", "", "all nodes", "shown", ("processes",), _always, 0, "Processes of all nodes"),
    Command("show.cards", ("c",), "layout('cards')", "cards", "cards", "shown", ("cluster",), _cards, 5, "Show nodes as cards"),
    Command("show.rows", ("w",), "layout('rows')", "rows", "wide rows", "shown", ("cluster",), _as_rows, 6, "Show nodes as rows"),
    Command("show.auto", ("a",), "layout('auto')", "", "what fits", "shown", ("cluster",), _always, 0, "Show nodes as fits"),
    # everywhere
    Command("go.cluster", ("1",), "go('cluster')", "", "Cluster", "everywhere", ALL, _not_on("cluster"), 0, "Go to Cluster"),
    Command("go.node", ("2",), "go('node')", "", "Node", "everywhere", ALL, _not_on("node"), 0, "Go to Node"),
    Command("go.processes", ("3",), "go('processes')", "processes", "Processes", "everywhere", ALL, _not_on("processes"), 11, "Go to Processes"),
    Command("go.migrations", ("4",), "go('migrations')", "", "Migrations", "everywhere", ALL, _not_on("migrations"), 0, "Go to Migrations"),
    Command("app.pause", ("p",), "pause", "", "pause the screen", "everywhere", ALL, _always, 0, "Pause or continue the screen"),
    Command("app.shot", ("ctrl+e",), "shot", "", "screenshot (SVG)", "everywhere", ALL, _always, 0, "Save a screenshot (SVG)"),
    Command("app.theme", ("ctrl+t",), "next_theme", "", "next theme", "everywhere", ALL, _always, 0, "Next theme"),
    Command("app.redraw", ("ctrl+l",), "redraw", "", "draw anew, ask the engine", "everywhere", ALL, _always, 0, "Draw anew"),
    Command("app.escape", ("escape",), "leave", "clear", "close, clear the filter", "everywhere", ALL, _escape, 12),
    Command("app.quit", ("q", "f10"), "quit", "quit", "quit", "everywhere", ALL, _always, 13, "Quit"),
    Command("app.help", ("question_mark", "f1"), "help", "help", "this help", "everywhere", ALL),
    Command("app.palette", ("ctrl+p", "colon"), "palette", "all commands", "all commands", "everywhere", ALL),
)  # fmt: skip
"""Everything; the order within a group is the order of the help."""

MOVES: tuple[tuple[str, str], ...] = (
    ("down", "down(1)"), ("up", "down(-1)"), ("j", "down(1)"), ("k", "down(-1)"),
    ("right", "right(1)"), ("left", "right(-1)"),
    ("pagedown", "page(1)"), ("pageup", "page(-1)"), ("home", "ends(0)"), ("end", "ends(1)"),
)  # fmt: skip
"""Keys that move the cursor: too plain for the footer."""

_NAMES = {
    "slash": "/", "question_mark": "?", "backslash": "\\", "left_square_bracket": "[", "right_square_bracket": "]",
    "colon": ":", "escape": "esc", "f1": "F1", "f4": "F4", "f5": "F5", "f6": "F6", "f9": "F9", "f10": "F10",
}  # fmt: skip


def key_name(key: str) -> str:
    """A key as people know it: `/` and not `slash`."""
    return _NAMES.get(key, key)


def of_screen(screen: str) -> list[Command]:
    """The commands a screen has, in the table's order."""
    return [command for command in COMMANDS if screen in command.screens]


def by_action(screen: str, action: str) -> Command | None:
    """The command of a screen that runs this action, with or without its argument."""
    found = (command for command in of_screen(screen) if command.action in {action, f"{action}()"})
    return next(found, None)


def footer(now: Situation) -> list[Command]:
    """What the footer offers: what works now, most useful first."""
    able = [command for command in of_screen(now.screen) if command.rank and command.label and not command.when(now)]
    if now.typing:
        return [command for command in of_screen(now.screen) if command.id in {"job.details", "app.escape"}]
    if now.job is None:  # `m` can be pressed there, for it explains; that is nothing to offer
        able = [command for command in able if command.id != "job.migrate"]
    if now.zoomed:  # the list is not seen
        able = [command for command in able if command.group != "shown"]
    return sorted(able, key=lambda command: command.rank)


def label(command: Command, now: Situation) -> str:
    """The footer's word for it, in this situation."""
    if command.id == "job.lock" and now.job is not None and now.job.locked:
        return "unlock"
    if command.id == "job.stop" and now.job is not None and now.job.state is JobState.STOPPED:
        return "go on"
    if command.id == "job.details" and (now.typing or now.zoomed):
        return "done" if now.typing else "back to the list"
    if command.id == "app.escape" and (now.typing or not now.filtered):
        return "close"
    return command.label


@dataclass(frozen=True, slots=True)
class Offer:
    """One line of the palette."""

    command: Command
    title: str
    note: str  # what it does, or why it cannot be done now
    able: bool


def palette(now: Situation) -> list[Offer]:
    """Everything with its names put in; what cannot be done now is there with its reason."""
    offers = []
    job = f"{job_label(now.job)} {now.job.pid or ''}".strip() if now.job else ""
    for command in of_screen(now.screen):
        reason = command.when(now)
        if not command.name or reason == HIDDEN or ("{job}" in command.name and not job):
            continue
        undo = f": {now.undo}" if now.undo else ""
        title = command.name.format(job=job, node=now.node_name or "this node", home=now.home_name, undo=undo)
        note = f"not now: {reason}" if reason else command.help if command.help.lower() != title.lower() else ""
        offers.append(Offer(command, title, note, not reason))
    return offers


def search(offers: list[Offer], text: str) -> list[Offer]:
    """The offers that contain every word typed; those that begin with it first, the impossible last."""
    words = text.lower().split()
    hits = [offer for offer in offers if all(word in f"{offer.title} {offer.note}".lower() for word in words)]
    start = text.lower().strip()
    return sorted(hits, key=lambda offer: (not offer.able, not offer.title.lower().startswith(start)))
