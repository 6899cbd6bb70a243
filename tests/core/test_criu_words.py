"""Finding CRIU, calling it, and reading its logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from omcore.checkpoint.criu import Criu, Stdio, dump_argv, explain, find_criu, last_errors, restore_argv

NOISE = "(00.001) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
CRIU = Criu(("/x/criu",), (4, 2, 1))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Error (criu/files.c:1): Unknown shit 600 (anon_inode:[io_uring])", "io_uring"),
        ("Error (criu/sk-unix.c:8): unix: External socket is used. Consider using --ext-unix-sk", "unix socket"),
        ("Error (criu/sk-unix.c:8): unix: Can't dump half of stream unix connection.", "unix socket"),
        ("Error (criu/sk-inet.c:1): inet: Connected TCP socket, consider using --tcp-established option.", "TCP"),
        ("Error (criu/mount.c:1): mnt: 135:./run/netns/a doesn't have a proper root mount", "namespaces"),
        ("Error (criu/cr-dump.c:1): Unseizable non-zombie 5 found, state S, err -1/3", "traced"),
        (
            "Error (criu/files-reg.c:2): File usr/lib/libz.so.1 has bad size 125376 (expect 121280)",
            "/usr/lib/libz.so.1",
        ),
        ("Error (criu/files-reg.c:2): File usr/bin/python3 has bad build-ID", "another build"),
        ("Error (criu/files-reg.c:2): File tmp/a has bad mode 0100000 (expect 0100644)", "permissions"),
        (
            "Error (criu/files-reg.c:2): Can't open file tmp/app.log on restore: No such file or directory",
            "/tmp/app.log is missing",
        ),
        ("Error (criu/mem.c:1): `- Can't open vma", "missing"),
        ("Error (criu/files-reg.c:1): Can't dump ghost file /tmp/a of 3000000 size, increase limit", "256 MiB"),
        ("Error (criu/file-lock.c:1): Some file locks are hold by dumping tasks! try --file-locks", "lock"),
        ("Error (criu/cr-restore.c:1230): Can't fork for 22930: File exists", "PID 22930"),
        ("Error (criu/image.c:1): Can't write: No space left on device", "no space"),
    ],
)
def test_known_errors_are_told_in_plain_words(line: str, words: str) -> None:
    sentence, hint = explain(NOISE + "(00.01)    12: " + line + "\n(00.02) Error (criu/cr-dump.c:9): Dumping FAILED.\n")
    assert words in sentence
    assert hint.endswith(".")
    assert "Error" not in sentence


def test_an_unknown_error_is_shown_as_it_is() -> None:
    log = NOISE + "(00.5) Error (criu/new.c:1): something: new went wrong\n(00.6) Warn (criu/x.c:1): hm\n"
    assert explain(log)[0] == "CRIU: something: new went wrong"
    assert last_errors(log) == ["something: new went wrong"]


def test_the_first_known_cause_counts() -> None:
    log = "Error (a.c:1): No space left on device\nError (b.c:2): Unseizable non-zombie 5 found\n"
    assert "no space" in explain(log)[0]


def test_an_empty_log_has_words_too() -> None:
    assert explain("")[0]


def test_a_dump_leaves_the_job_stopped_and_reads_no_configuration() -> None:
    argv = dump_argv(CRIU, 7, "8800:1a", unprivileged=True)
    assert argv[:2] == ["/x/criu", "dump"]
    assert argv[argv.index("-t") + 1] == "7"
    assert argv[argv.index("--external") + 1] == "tty[8800:1a]"
    assert {"--leave-stopped", "--no-default-config", "--shell-job", "--unprivileged"} <= set(argv)
    plain = dump_argv(CRIU, 7, "", unprivileged=False)
    assert "--external" not in plain
    assert "--unprivileged" not in plain


def test_a_restore_gets_new_ends_for_what_the_job_has() -> None:
    stdio = Stdio(tty=(0,), inodes=(0, 11, 12), key="8800:1a", at_end=(2,))
    argv = restore_argv(CRIU, stdio, unprivileged=False)
    given = [argv[at + 1] for at, word in enumerate(argv) if word == "--inherit-fd"]
    assert given == ["fd[22]:pipe:[11]", "fd[24]:tty[8800:1a]"]
    assert {"-d", "-S", "--leave-stopped"} <= set(argv)
    assert "--shell-job" not in argv


def test_a_named_criu_that_is_none_is_not_replaced_by_another(tmp_path: Path) -> None:
    assert find_criu({"OMVIEW_CRIU": str(tmp_path), "HOME": str(tmp_path)}) is None


def test_a_criu_can_be_named_by_its_path(tmp_path: Path) -> None:
    program = tmp_path / "criu"
    program.write_text("#!/bin/sh\necho Version: 4.3.1\necho GitID: v4.3.1\n")
    program.chmod(0o755)
    assert find_criu({"OMVIEW_CRIU": str(program), "HOME": str(tmp_path)}) == Criu((str(program),), (4, 3, 1))


def test_a_criu_in_path_is_found(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "criu"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho Version: 4.2\n")
    program.chmod(0o755)
    found = find_criu({"PATH": str(program.parent), "HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/run/short"})
    assert found is not None  # a system's own one comes before it
    assert found.version >= (4, 2) or found.command != (str(program),)
