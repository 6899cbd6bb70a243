"""The house rules that a machine can check: what imports what, what is never called, what explains itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*ROOT.glob("omcore/**/*.py"), *ROOT.glob("omview/**/*.py")])
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path)) for path in SOURCES}
HEAVY = ("textual", "rich", "plotext", "zmq", "cryptography", "psutil", "zeroconf")

OWNERS = {
    "zmq": ("omcore/transport/", "omcore/trust/"),
    "cryptography": ("omcore/transport/", "omcore/trust/"),
    "psutil": ("omcore/sensors/",),
    "zeroconf": ("omcore/discovery/",),
    "textual": ("omview/",),
    "rich": ("omview/",),
    "plotext": ("omview/",),
    "click": ("omview/cli/",),
    "platformdirs": (),
}
FACE_MAY = {
    "omcore.audit",
    "omcore.client",
    "omcore.config",
    "omcore.doctor",
    "omcore.doctor_security",
    "omcore.errors",
    "omcore.lab",
    "omcore.paths",
    "omcore.requests",
    "omcore.service",
    "omcore.sim",
    "omcore.text",
    "omcore.types",
    "omcore.wire",
}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
BANNED_CALLS = {"eval", "exec", "recv_pyobj", "send_pyobj", "system", "popen", "getoutput", "getstatusoutput"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in the file, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module in ("omcore", "omview"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module


def banned(tree: ast.AST) -> list[str]:
    """What the file does that nobody may: turn foreign bytes into code, or give a line to a shell."""
    found = [name for name in imports(tree) if name.split(".")[0] in BANNED_MODULES]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in BANNED_CALLS & {"eval", "exec"}:
            found.append(called.id)
        if isinstance(called, ast.Attribute) and called.attr in BANNED_CALLS - {"eval", "exec"}:
            found.append(called.attr)
        for word in node.keywords:
            if word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False):
                found.append("shell=True")
    return found


@pytest.mark.parametrize("module", ["omcore.client", "omview.cli.root", "omview.cli.listing", "omview.cli.migrate"])
def test_what_a_listing_needs_loads_nothing_heavy(module: str) -> None:
    script = f"import {module}, sys; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""


def test_each_library_is_imported_by_its_owner_only() -> None:
    for path, tree in TREES.items():
        for name in imports(tree):
            owners = OWNERS.get(name.split(".")[0])
            assert owners is None or path.startswith(owners), f"{path}: {name} belongs to {owners}"


def test_a_face_imports_of_the_engine_only_what_is_meant_for_it() -> None:
    for path, tree in TREES.items():
        for name in imports(tree) if path.startswith("omview/") else ():
            if name.startswith("omcore."):
                module = ".".join(name.split(".")[:2])
                there = list(ROOT.glob(f"{module.replace('.', '/')}*"))  # else an attribute of omcore itself
                assert module in FACE_MAY or not there, f"{path}: {name} is the engine's inside"


def test_nothing_turns_foreign_bytes_into_code() -> None:
    assert {path: banned(tree) for path, tree in TREES.items() if banned(tree)} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "import shelve as s",
        "eval(text)",
        "exec(text)",
        "socket.recv_pyobj()",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "os.system(text)",
    ],
)
def test_the_ban_catches_what_it_bans(line: str) -> None:  # SECURITY case 44
    assert banned(ast.parse(line))


def test_the_ban_lets_the_rest_pass() -> None:
    assert banned(ast.parse("subprocess.run(words, shell=False); os.execve(p, a, e); re.compile(x)")) == []


def test_every_file_says_what_it_is_for() -> None:
    assert [path for path, tree in TREES.items() if tree.body and not ast.get_docstring(tree)] == []


def test_the_client_promises_just_this() -> None:
    import omcore.client

    assert sorted(omcore.client.__all__) == ["Client", "SocketClient", "Stream", "connect"]
    for name in omcore.client.__all__:
        assert getattr(omcore.client, name).__doc__, name


def test_no_path_of_a_developers_machine_is_written_down() -> None:
    here = (str(ROOT) + "/", "/work/" + "main", "/tmp/" + "om/")
    for path in [*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("tools/*"), ROOT / "Makefile", ROOT / "README.md"]:
        text = path.read_text(errors="replace") if path.is_file() else ""
        assert not [place for place in here if place in text], path
