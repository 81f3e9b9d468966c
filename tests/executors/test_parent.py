"""Processes that die from outside, and reward files that cannot be offered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewardsvc.clock import now_ns
from rewardsvc.contract import Rollout, ScoreRequest, Task
from rewardsvc.scheduler import Limits, Scheduler
from tests.executors.conftest import StartWatched
from tests.executors.watched import Watched, marked, plugin, wait_until


def ready(service: Watched) -> bool:
    return bool(service.call("GET", "/readyz")[0] == 200)


def reasons_not_ready(service: Watched) -> str:
    return str(service.call("GET", "/readyz")[2])


class Load:
    """Callers that keep a service busy with honest groups, and remember every reply."""

    def __init__(self, service: Watched, callers: int = 6, pause: str = "wait 0.002") -> None:
        self._service = service
        self._stop = threading.Event()
        self._texts = [pause, "fine", "else", "fine"]
        self.replies: list[list[dict[str, Any]]] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def _call(self) -> None:
        while not self._stop.is_set():
            self.replies.append(self._service.score("trouble", self._texts, reference="fine"))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: len(self.replies) > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def lost(self) -> list[dict[str, Any]]:
        """The verdicts without a number."""
        return [verdict for reply in list(self.replies) for verdict in reply if verdict["status"] != "scored"]


def test_the_death_of_the_parent_loses_nothing_that_is_queued_or_running(start_watched: StartWatched) -> None:
    with start_watched() as service, service.keeping_its_belongings(), Load(service) as load:
        old = service.parent.pid
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: not ready(service), 2)
        assert "parent of the workers" in reasons_not_ready(service)
        during = len(load.replies)
        wait_until(lambda: len(load.replies) > during + 20, 5)
        wait_until(lambda: ready(service), 20)
        assert service.parent.pid != old
        assert load.lost() == []


def test_workers_are_replaced_after_the_parent_was(start_watched: StartWatched) -> None:
    with start_watched() as service, service.keeping_its_belongings():
        service.parent.kill()
        wait_until(lambda: not ready(service), 2)
        for worker in service.workers:
            worker.kill()
        queued = ThreadPoolExecutor(1).submit(service.score, "trouble", ["fine"] * 16, reference="fine")
        wait_until(lambda: ready(service), 20)
        assert {verdict["reward"] for verdict in queued.result()} == {1.0}
        assert service.score("remote", ["fine"], reference="fine")[0]["reward"] == 1.0


def test_a_parent_that_dies_again_and_again_is_started_again_and_again(start_watched: StartWatched) -> None:
    with start_watched() as service, service.keeping_its_belongings():
        for _ in range(3):
            service.parent.kill()
            wait_until(lambda: not ready(service), 5)
            wait_until(lambda: ready(service), 20)
        assert service.score("exact", ["1"], reference="1")[0]["reward"] == 1.0
        assert service.metric("rewardsvc_parent_deaths_total") == 3


@pytest.mark.parametrize(
    ("victims", "reason"),
    [
        ("worker", "killed_by_signal"),
        ("minder", "parent_killed"),
    ],
)
def test_a_process_killed_from_outside_costs_the_item_it_was_on_and_no_other(
    watched: Watched, victims: str, reason: str
) -> None:
    with watched.keeping_its_belongings():
        group = ThreadPoolExecutor(1).submit(watched.score, "patient", ["5", "0", "0.1"])
        time.sleep(0.3)
        busy = [worker for worker in watched.workers if worker.status() == psutil.STATUS_SLEEPING]
        for worker in busy:
            (worker if victims == "worker" else worker.parent()).kill()
        verdicts = group.result()
        assert [(verdict["status"], verdict["reason"]) for verdict in verdicts] == [
            ("crashed", reason),
            ("scored", "waited"),
            ("scored", "waited"),
        ]


def test_the_death_of_all_workers_at_once_costs_their_items_and_no_other(watched: Watched) -> None:
    with watched.keeping_its_belongings(), ThreadPoolExecutor(4) as callers:
        groups = [callers.submit(watched.score, "patient", ["0.7", f"0.00{number}"]) for number in range(4)]
        time.sleep(0.35)
        for worker in watched.workers:
            worker.kill()
        verdicts = [verdict for group in groups for verdict in group.result()]
        assert len(verdicts) == 8
        assert {verdict["status"] for verdict in verdicts} <= {"scored", "crashed"}
        assert 1 <= sum(verdict["status"] == "crashed" for verdict in verdicts) <= 4
        assert all(verdict["status"] == "scored" for group in groups for verdict in group.result()[1:])


def test_workers_killed_while_idle_are_replaced_and_nobody_notices(watched: Watched) -> None:
    with watched.keeping_its_belongings():
        for victims in (watched.workers, watched.minders):
            for victim in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            assert {verdict["reward"] for verdict in watched.score("trouble", ["fine"] * 16, reference="fine")} == {1.0}


def test_a_worker_stopped_from_outside_while_idle_loses_no_item(watched: Watched) -> None:
    with watched.keeping_its_belongings():
        for worker in watched.workers:
            worker.suspend()
        verdicts = watched.score("trouble", ["fine"] * 8, reference="fine")
        assert {verdict["reward"] for verdict in verdicts} == {1.0}


def test_a_process_of_coroutines_that_cannot_be_started_keeps_the_service_from_being_ready(
    start_watched: StartWatched,
) -> None:
    """The parent, which would have to fork another one, is stopped for a while."""
    with start_watched() as service, service.keeping_its_belongings():
        (io_worker,) = [worker for worker in service.workers if has_event_loop(worker)]
        service.parent.suspend()
        io_worker.kill()
        wait_until(lambda: "coroutine rewards" in reasons_not_ready(service), 5)
        wait_until(lambda: service.post("remote", group_of_one(200))[0] == 503, 5)
        assert service.score("exact", ["1"], reference="1")[0]["reward"] == 1.0
        waiting = ThreadPoolExecutor(1).submit(service.score, "remote", ["fine"], reference="fine")
        service.parent.resume()
        assert waiting.result()[0]["reward"] == 1.0
        wait_until(lambda: ready(service))


def has_event_loop(process: psutil.Process) -> bool:
    descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
    return any("eventpoll" in os.readlink(descriptor) for descriptor in descriptors)


def group_of_one(deadline_ms: int) -> dict[str, Any]:
    return {"rollouts": [{"completion": "fine"}], "deadline_ms": deadline_ms}


def test_no_process_outlives_a_front_that_is_killed(start_watched: StartWatched) -> None:
    with start_watched() as service:
        threading.Thread(target=score_in_vain, args=(service,)).start()
        time.sleep(0.2)
        service.front.kill()
        service.process.wait()
        wait_until(lambda: not service.survivors(), 10)


def score_in_vain(service: Watched) -> None:
    with pytest.raises(OSError):
        service.score("patient", ["8"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_is_left_to_the_front_which_ends_without_an_error(
    start_watched: StartWatched, number: signal.Signals
) -> None:
    with start_watched() as service:
        group = ThreadPoolExecutor(1).submit(service.score, "patient", ["0.5"])
        time.sleep(0.2)
        for process in marked(service.mark):
            process.send_signal(number)
        assert group.result()[0]["status"] == "scored"
        assert service.process.wait(20) == 0
        wait_until(lambda: not service.survivors())
        assert "error" not in service.log.read_text()


def test_a_signal_to_every_process_while_they_start_ends_them_without_an_error(start_watched: StartWatched) -> None:
    with start_watched(wait=False) as service:
        wait_until(lambda: answers(service), 20)
        for process in marked(service.mark):
            process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        wait_until(lambda: not service.survivors())
        assert "error" not in service.log.read_text()


def answers(service: Watched) -> bool:
    try:
        return bool(service.call("GET", "/livez")[0] == 200)
    except OSError:
        return False


def test_a_program_that_a_reward_starts_can_be_ended_by_a_signal(tmp_path: Path) -> None:
    score = "import subprocess; p = subprocess.Popen(['sleep', '60']); p.terminate()\n"
    text = good("starts").replace(
        "return Verdict.scored(1.0", f"{score}        return Verdict.scored(float(p.wait() < 0)"
    )

    async def start() -> None:
        async with Scheduler(limits(1, [reward_file(tmp_path / "starts.py", text)])) as scheduler:
            assert await score_one(scheduler, "starts") == 1.0

    asyncio.run(start())


REWARD = '''
from rewardsvc.reward import *
class {cls}(PerRollout):
    """A reward."""
    name, version = "{name}", "1"
    cases = [Case.full("yes")]
    {more}
    def score(self, rollout, task, params):
        return Verdict.scored(1.0, "fine")
'''


def good(name: str, cls: str = "Good", more: str = "") -> str:
    return REWARD.format(name=name, cls=cls, more=more)


BROKEN: dict[str, tuple[str, str]] = {
    "raises": ("raise KeyError('no such thing')", "importing it failed: KeyError: 'no such thing'"),
    "syntax": ("def f(:", "importing it failed: SyntaxError"),
    "sys_exits": ("import sys; sys.exit(3)", "importing it failed: SystemExit: 3"),
    "os_exits": ("import os; os._exit(3)", "it ended the process that imported it"),
    "interrupts": ("raise KeyboardInterrupt", "it ended the process that imported it"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "it ended the process that imported it"),
    "closes_all": ("import os; os.closerange(3, 99)", "it ended the process that imported it"),
    "hangs": ("import time; time.sleep(99)", "importing it took more than 1.5 s"),
    "spins": ("while True: pass", "importing it took more than 1.5 s"),
    "nothing": ("x = 1", "the file must define exactly one reward class, it defines 0"),
    "two_classes": (good("two_a", "A") + good("two_b", "B"), "exactly one reward class, it defines 2"),
    "bad_name": (good("Bad Name"), "set `name` to lower-case letters"),
    "no_version": (good("no_version", more="version = ''"), "set `version`"),
    "no_docstring": (good("no_docstring").replace('"""A reward."""', ""), "write a docstring"),
    "async_on_cpu": (good("async_on_cpu").replace("def score", "async def score"), "is `async def`"),
    "sync_on_io": (good("sync_on_io", more="resources = Io()"), "is `async def`"),
    "endless": (good("endless", more="resources = Cpu(item_timeout=float('inf'))"), "`item_timeout` must be"),
    "no_time": (good("no_time", more="resources = Cpu(item_timeout=0)"), "`item_timeout` must be"),
    "no_memory": (good("no_memory", more="resources = Cpu(memory_mb=0)"), "`memory_mb` must be"),
    "no_room": (good("no_room", more="resources = Io(concurrency=0)"), "is `async def`"),
    "odd_resources": (good("odd_resources", more="resources = 5"), "set `resources`"),
    "odd_range": (good("odd_range", more="range = (1.0, float('nan'))"), "`range` must be"),
    "odd_case": (good("odd_case", more="cases = [Case('group', ('a', 'b'), (1.0,))]"), "as many rewards as"),
    "unsendable": (good("unsendable", more="cases = [Case.full('a', reference=object())]"), "is not plain data"),
    "surrogate": (good("surrogate", more="reasons = {'a': '\\ud800'}"), "is not plain data"),
    "mistyped": (good("mistyped", more="reasons = {'a': 1}"), "is not plain data"),
    "warm_fails": (good("warm_fails", more="warm = classmethod(lambda cls: 1 / 0)"), "ZeroDivisionError"),
    "init_fails": (good("init_fails", more="__init__ = lambda self: 1 / 0"), "ZeroDivisionError"),
    "fails_test": (good("fails_test", more="cases = [Case.zero('no', why='no is odd')]"), "'no is odd': promised 0.0"),
    "lies": (good("lies", more="cases = [Case.full('a', reason='equal')]"), "promised the reason 'equal', got 1.0"),
    "exits_in_test": (
        good("exits_in_test").replace("return Verdict", "import os; os._exit(1); return Verdict"),
        "got None (crashed, exited)",
    ),
    "raises_in_test": (
        good("raises_in_test").replace("return Verdict", "[][1]; return Verdict"),
        "got None (plugin_error, exception: IndexError at raises_in_test.py:",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one scheduler says that is given every broken file there is, and a good one before and behind them."""
    folder = tmp_path_factory.mktemp("rewards")
    texts = {"first": good("first"), **{name: text for name, (text, _) in BROKEN.items()}, "last": good("last")}
    files = [str(reward_file(folder / f"{name}.py", text)) for name, text in texts.items()]

    async def start() -> dict[str, Any]:
        scheduler = Scheduler(limits(2, [*files, str(folder / "missing.py")]))
        scheduler.parent.import_seconds = 1.5
        async with scheduler:
            assert scheduler.not_ready_because() == []
            for name in ("first", "last", "exact"):
                assert await score_one(scheduler, name) is not None
            return dict(scheduler.catalogue)

    return asyncio.run(start())


class TestRewardFiles:
    """A broken file costs itself and nothing else."""

    def test_the_good_ones_are_offered(self, catalogue: dict[str, Any]) -> None:
        assert catalogue["first"].available
        assert catalogue["last"].available
        assert catalogue["exact"].available

    @pytest.mark.parametrize(("name", "because"), [(name, because) for name, (_, because) in BROKEN.items()])
    def test_a_broken_one_is_unavailable_and_says_why(self, catalogue: dict[str, Any], name: str, because: str) -> None:
        assert not catalogue[name].available
        assert because in catalogue[name].unavailable_because

    def test_a_missing_one_says_which_setting_to_correct(self, catalogue: dict[str, Any]) -> None:
        assert "there is no file" in catalogue["missing"].unavailable_because
        assert "REWARDSVC_REWARD_FILES" in catalogue["missing"].unavailable_because


def limits(workers: int, files: Iterable[Path | str]) -> Limits:
    return Limits(workers, 0, 100, environment=dict(os.environ), reward_files=tuple(map(str, files)))


async def score_one(scheduler: Scheduler, name: str) -> float | None:
    request = ScoreRequest(task=Task(reference="1"), rollouts=[Rollout(completion="1")])
    return (await scheduler.score(name, request, "", now_ns())).verdicts[0].reward


def catalogue_of(files: list[Path]) -> dict[str, Any]:
    async def start() -> dict[str, Any]:
        async with Scheduler(limits(1, files)) as scheduler:
            assert await score_one(scheduler, "exact") == 1.0
            return dict(scheduler.catalogue)

    return asyncio.run(start())


def reward_file(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_name_that_is_taken_hurts_only_the_one_that_comes_second(tmp_path: Path) -> None:
    files = [
        reward_file(tmp_path / "mine.py", good("exact")),
        reward_file(tmp_path / "exact.py", good("exact")),
        reward_file(tmp_path / "other" / "exact.py", good("exact")),
    ]
    catalogue = catalogue_of([*files, files[0]])
    assert catalogue["exact"].available
    assert catalogue["exact"].wheel.startswith("rewardsvc ")
    taken = [name for name, info in catalogue.items() if "already taken" in (info.unavailable_because or "")]
    assert taken == ["mine", "exact of exact.py", str(files[2])]
    for name, file in zip(taken, files, strict=True):
        because = catalogue[name].unavailable_because or ""
        assert str(file) in because
        assert "rewardsvc.rewards.exact.Exact both have it; give one another `name`" in because


def test_two_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    files = [reward_file(tmp_path / folder / "same.py", good("mine")) for folder in ("a", "b")]
    assert str(files[0]) in (catalogue_of(files)["same"].unavailable_because or "")


def test_a_file_that_breaks_its_import_takes_nothing_from_an_installed_reward_of_the_same_name(tmp_path: Path) -> None:
    catalogue = catalogue_of([reward_file(tmp_path / "exact.py", "import os; os._exit(1)")])
    assert catalogue["exact"].available
    assert not catalogue["exact of exact.py"].available


def test_a_broken_file_does_not_take_the_name_of_a_good_one_that_comes_later(tmp_path: Path) -> None:
    broken = reward_file(tmp_path / "good.py", "raise KeyError")
    catalogue = catalogue_of([broken, reward_file(tmp_path / "mine.py", good("good"))])
    assert catalogue["good"].available
    assert not catalogue["good of good.py"].available


def test_what_an_import_leaves_running_stays_but_children_of_workers_do_not(tmp_path: Path) -> None:
    helper = "import subprocess; HELPER = subprocess.Popen(['sleep', '31536'])\n"
    file = reward_file(tmp_path / "helped.py", helper + good("helped"))

    async def start() -> None:
        async with Scheduler(limits(1, [file])) as scheduler:
            parent = psutil.Process(scheduler.parent.pid)
            (minder,) = [child for child in parent.children() if "sleep" not in child.cmdline()]
            minder.kill()
            assert await score_one(scheduler, "helped") == 1.0
            assert any("31536" in child.cmdline() for child in parent.children())
            helpers = parent.children()
        for helper in helpers:
            if helper.is_running():
                helper.kill()

    asyncio.run(start())


def test_required_rewards_keep_the_service_from_being_ready_and_say_why(start_watched: StartWatched) -> None:
    files = {
        "reward_files": f"{plugin('rank')},{plugin('nowhere')}",
        "required_rewards": "exact,rank,nowhere,unheard_of",
    }
    with start_watched(wait=False, **files) as service:
        wait_until(lambda: is_tested(service, "rank") and b"self-test" not in service.call("GET", "/readyz")[2], 20)
        status, _, body = service.call("GET", "/readyz")
        assert status == 503
        assert b"nowhere is unavailable: there is no file" in body
        assert b"unheard_of is unavailable: it is not installed" in body
        assert b"rank" not in body
        assert b"exact" not in body
        assert service.score("rank", ["a", "bb"])[1]["reward"] == 1.0


def is_tested(service: Watched, name: str) -> bool:
    try:
        return bool(service.post(name, {"rollouts": []})[0] == 200)
    except OSError:
        return False


def test_the_reason_why_a_reward_is_unavailable_is_given_to_its_callers(start_watched: StartWatched) -> None:
    with start_watched(reward_files=plugin("nowhere")) as service:
        status, problem = service.post("nowhere", {"rollouts": []})
        assert status == 409
        assert "there is no file" in problem["detail"]
