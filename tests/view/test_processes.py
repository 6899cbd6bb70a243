import pytest

from omcore.types import JobState, ProcDelta, ProcKey, ProcView
from omview import processes as procs
from omview.processes import FilterError, ProcBook, Seen
from tests import demo


def seen(text: str, **more: object) -> list[int]:
    """PIDs that a filter lets through."""
    found = procs.see(demo.processes(), demo.view(), procs.parse_filter(text), **more)  # type: ignore[arg-type]
    return [each.proc.key.pid for each in found]


def test_differences_add_up_to_the_list() -> None:
    book = ProcBook()
    one, two, three = demo.processes()[:3]
    book.apply(ProcDelta((1, 2, 3, 4), (one, two), full=True))
    book.apply(ProcDelta((1, 2), (three,), (one.key,), missing=(2,)))
    assert set(book.procs) == {two.key, three.key}
    assert book.missing == (2,)
    book.apply(ProcDelta((two.key.node,), (), full=True))
    assert two.key not in book.procs
    book.clear()
    assert (book.procs, book.asked) == ({}, False)


@pytest.mark.parametrize(
    ("text", "pids"),
    [
        ("ffmpeg", [31207]),
        ("FFMPEG talk", [31207]),
        ("31207", [31207]),
        ("cpu>300", [31207, 31177, 9188]),
        ("cpu>=301 !ffmpeg", [31177, 9188]),
        ("cpu>300 user=chen or blender", [31290, 9188]),
        ("mem>3G", [31290, 28340]),
        ("mem>3000mb job", [31290, 28340]),
        ("moves=3", [9263]),
        ("moves>1 guest", [31177, 9263]),
        ("locked", [1410]),
        ("moving", [48211]),
        ("pid<2 node=b*", [1]),
        ("job user!=ana cpu<=12", [1410, 3302]),
        ("name=make", [9188]),
        ("tty=pts/0 node=birch", [9201, 9204, 9210]),
        ("home=4", [77120]),
        ("time>23000", [31207, 31177]),
        ("threads!=4 cpu>50", [9201, 9204, 9210]),
        ("state=R user=mysql", [1410]),
        ('"+W3840 +H2160"', [31177]),
        ('"http.server', [77120]),
        ("sshd ana@", [31190]),
        ("!job ! bash", [31201]),
    ],
)
def test_the_filter_language(text: str, pids: list[int]) -> None:
    assert seen(text) == pids


def test_movable_and_kernel_are_words_of_the_filter() -> None:
    assert 31207 in seen("movable")
    assert 31290 not in seen("movable")
    assert len(seen("!kernel")) == len(demo.processes()) - len(seen("kernel")) < len(demo.processes())


def test_an_empty_filter_is_no_filter() -> None:
    assert procs.parse_filter("") is None
    assert procs.parse_filter(" or  or ") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cpu>>5", "cpu>>5: a number is expected after >"),
        ("mem>big", "mem>big: a number is expected after >"),
        ("user>ana", "user>ana: user can be compared with = and != only"),
        ("node=", "node=: a name is expected after ="),
    ],
)
def test_a_wrong_filter_names_the_word(text: str, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        procs.parse_filter(text)
    assert str(caught.value) == says


def test_jobs_only_shows_one_row_per_job() -> None:
    assert len(seen("", jobs_only=True)) == len(demo.JOBS)


@pytest.mark.parametrize("order", procs.ORDERS)
def test_every_order_is_total_and_stable(order: str) -> None:
    rows = procs.see(demo.processes(), demo.view(), None)
    once = [each.proc.key for each in procs.sort(rows, order, False)]
    again = [each.proc.key for each in procs.sort(list(reversed(rows)), order, False)]
    assert once == again
    assert len(set(once)) == len(rows)


def test_an_order_can_be_kept_while_new_rows_come_last() -> None:
    rows = procs.see(demo.processes()[:4], demo.view(), None)
    keys = [each.proc.key for each in rows]
    kept = procs.keep_order(rows, [keys[2], keys[0], keys[1]])
    assert [each.proc.key for each in kept] == [keys[2], keys[0], keys[1], keys[3]]


def proc(pid: int, ppid: int, node: int = 1) -> ProcView:
    return ProcView(ProcKey(node, pid, pid), ppid, "ana", "S", 0.0, 0, 0.0, 1, "sh", f"sh {pid}")


def test_the_tree_draws_branches() -> None:
    rows = [Seen(each, None, "a") for each in (proc(1, 0), proc(2, 1), proc(3, 2), proc(4, 1), proc(2, 7, node=2))]
    drawn = [(each.proc.key.node, each.proc.key.pid, branch) for each, branch in procs.tree(rows)]
    assert drawn == [(1, 1, ""), (1, 2, "├ "), (1, 3, "│ └ "), (1, 4, "└ "), (2, 2, "")]


def test_a_deep_tree_keeps_room_for_the_command() -> None:
    rows = [Seen(proc(pid, pid - 1), None, "a") for pid in range(1, 60)]
    assert max(len(branch) for _, branch in procs.tree(rows)) <= 18


def test_a_circle_of_parents_is_shown_once() -> None:
    rows = [Seen(each, None, "a") for each in (proc(1, 1), proc(2, 3), proc(3, 2))]
    assert sorted(each.proc.key.pid for each, _ in procs.tree(rows)) == [1, 2, 3]


def test_a_node_lists_the_deputies_of_its_jobs_that_are_away() -> None:
    rows = procs.deputies(demo.view(), 2)
    assert [row.command for row in rows] == ["gnuplot → delta"]
    jobs = {job.id: job for job in demo.JOBS}
    drawn = procs.row(Seen(rows[0], jobs[rows[0].job or demo.job_id(0)], "birch"), "", {2: "birch"}, 2)
    assert (drawn.sign[0], drawn.pid, drawn.move[0]) == ("◇", "", "away")


def test_a_row_has_words_for_everything() -> None:
    names = {1: "atlas", 2: "birch"}
    everything = {each.proc.key.pid: each for each in procs.see(demo.processes(), demo.view(), None)}
    ffmpeg = procs.row(everything[31207], "", names, None)
    assert (ffmpeg.sign[0], ffmpeg.cpu[0], ffmpeg.mem[0], ffmpeg.moves, ffmpeg.move[0]) == (
        "●",
        "398",
        "1.2G",
        "1",
        "yes",
    )
    assert (ffmpeg.home, ffmpeg.program[0], ffmpeg.node[1]) == ("atlas", "ffmpeg", "text")
    povray = procs.row(everything[31177], "", names, None)
    assert (povray.sign[0], povray.node) == ("◆", ("birch", "guest"))
    child = procs.row(everything[9201], "├ ", names, None)
    assert (child.home, child.moves, child.sign[0]) == ("", "·", "●")
    idle = procs.row(everything[31201], "", names, None)
    assert (idle.cpu, idle.move[0], idle.program[1]) == (("·", "faint"), "no", "muted")
    stale = procs.row(everything[31207], "", names, None, stale=True)
    assert (stale.sign[0], stale.cpu[0], stale.mem[0]) == ("~", "?", "?")


def test_a_job_that_is_unknown_is_a_plain_process() -> None:
    view = demo.view(jobs=tuple(job for job in demo.JOBS if job.state is not JobState.MOVING))
    found = [each for each in procs.see(demo.processes(), view, None) if each.proc.key.pid == 48211]
    assert found[0].job is None


def test_a_node_that_did_not_answer_stays_missing_until_it_does() -> None:
    book = ProcBook()
    book.apply(ProcDelta((1,), full=True))
    book.apply(ProcDelta((3,), missing=(3,)))
    book.apply(ProcDelta((1,)))
    assert book.missing == (3,)
    book.apply(ProcDelta((3,), full=True))
    assert not book.missing
