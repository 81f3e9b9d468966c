"""One bad rollout in a group: it alone goes unscored, under the right name, in time, and nothing of it is left."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.executors.watched import SLACK, Watched, tell_lateness, wait_until

ITEM_LIMIT = 0.4
Outcome = tuple[str, str]

TIMEOUT, MEMORY = ("timeout", "item_limit"), ("resource_limit", "memory_limit")
EXITED, SIGNAL, ORPHANED = ("crashed", "exited"), ("crashed", "killed_by_signal"), ("crashed", "parent_killed")
GARBLED = ("crashed", "broken_stream")
RAISED, INVALID = ("plugin_error", "exception"), ("plugin_error", "invalid_verdict")
HARMLESS = ("scored", "not_equal")

TROUBLE: dict[str, Outcome] = {
    "hang in C": TIMEOUT,
    "hang in a regex": TIMEOUT,
    "sleep": TIMEOUT,
    "spin": TIMEOUT,
    "segfault": SIGNAL,
    "abort": SIGNAL,
    "exit": EXITED,
    "exit 0": EXITED,
    "sys.exit": EXITED,
    "eat memory": MEMORY,
    "eat memory and hide it": MEMORY,
    "kill the parent": ORPHANED,
    "stop": TIMEOUT,
    "garbage": GARBLED,
    "raise": RAISED,
    "recurse": RAISED,
    "daemon": HARMLESS,
    "nothing": INVALID,
    "wrong id": INVALID,
    "nan": INVALID,
    "inf": INVALID,
    "string": INVALID,
    "two": INVALID,
    "none": INVALID,
    "bool": INVALID,
}
MISCHIEF: dict[str, Outcome] = {
    "stop the parent": TIMEOUT,
    "kill the process group": ORPHANED,
    "garbage": GARBLED,
    "small garbage": GARBLED,
    "half a frame": GARBLED,
    "shut sockets": EXITED,
    "shut sockets and spin": TIMEOUT,
    "fork": HARMLESS,
    "fork and exit": EXITED,
    "double daemon": HARMLESS,
    "daemon and kill the parent": ORPHANED,
    "odd fault": INVALID,
    "mute error": RAISED,
    "interrupt": EXITED,
    "ignore signals and spin": TIMEOUT,
    "pause in C": TIMEOUT,
    "grow by 90": MEMORY,
    "grow by 90 and shrink": MEMORY,
    "evidence with a number for a name": INVALID,
    "evidence with an object": INVALID,
    "evidence of 10 MB": INVALID,
    "evidence of depth 10000": INVALID,
    "a huge number": INVALID,
    "a lone surrogate": INVALID,
    "an undeclared part": INVALID,
    "no reason": INVALID,
    "an unknown status": INVALID,
    "a number without a score": INVALID,
    "parts in a list": INVALID,
    "a class": INVALID,
}
ALL = [("trouble", *item) for item in TROUBLE.items()] + [("mischief", *item) for item in MISCHIEF.items()]
HONEST = ["fine", "else"] * 8


def group(deeds: dict[int, str]) -> list[str]:
    """Sixteen rollouts, honest but for these."""
    return [deeds.get(index, text) for index, text in enumerate(HONEST)]


def outcome(verdict: dict[str, Any]) -> Outcome:
    return verdict["status"], verdict["reason"]


def check(verdicts: list[dict[str, Any]], culprits: dict[int, Outcome]) -> None:
    """The culprits are named, and everybody else got the right verdict."""
    assert [verdict["id"] for verdict in verdicts] == [str(index) for index in range(len(verdicts))]
    for index, verdict in enumerate(verdicts):
        honest = HONEST[index % 2]
        expected = culprits.get(index, ("scored", "equal" if honest == "fine" else "not_equal"))
        assert outcome(verdict) == expected, (index, verdict)
        if index not in culprits:
            assert (verdict["reward"], verdict["answer"]) == (float(honest == "fine"), honest)
        elif expected[0] != "scored":
            assert verdict["reward"] is None


def timed_score(service: Watched, reward: str, texts: list[str], **request: Any) -> tuple[list[dict[str, Any]], float]:
    began = time.monotonic()
    verdicts = service.score(reward, texts, reference="fine", **request)
    return verdicts, time.monotonic() - began


@pytest.mark.parametrize(("reward", "deed", "expected"), ALL, ids=[f"{reward}: {deed}" for reward, deed, _ in ALL])
def test_a_culprit_in_a_group_of_16_alone_goes_unscored_in_time_and_leaves_nothing(
    watched: Watched, reward: str, deed: str, expected: Outcome
) -> None:
    with watched.keeping_its_belongings():
        verdicts, seconds = timed_score(watched, reward, group({5: deed}))
        tell_lateness(deed, seconds, ITEM_LIMIT)
        check(verdicts, {5: expected})
        assert seconds < ITEM_LIMIT + SLACK
        check(watched.score(reward, HONEST, reference="fine"), {})


@pytest.mark.parametrize("deed", ["hang in C", "sleep", "segfault", "exit"])
def test_a_culprit_costs_its_group_no_more_than_its_limit_and_50_ms(watched: Watched, deed: str) -> None:
    """In the best of some tries: a busy machine is no fault of the code, and gives one that spins more time."""
    limit = ITEM_LIMIT if TROUBLE[deed] == TIMEOUT else 0.0
    assert any(timed_score(watched, "trouble", group({5: deed}))[1] < limit + 0.05 for _ in range(10))


def test_several_culprits_of_one_group_are_all_named(watched: Watched) -> None:
    deeds = {0: "segfault", 3: "spin", 4: "exit", 9: "eat memory", 10: "raise", 15: "kill the parent"}
    with watched.keeping_its_belongings():
        verdicts, seconds = timed_score(watched, "trouble", group(deeds))
        check(verdicts, {index: TROUBLE[deed] for index, deed in deeds.items()})
        assert seconds < 2 * ITEM_LIMIT + SLACK


def test_a_group_of_culprits_only_is_answered_as_such(watched: Watched) -> None:
    with watched.keeping_its_belongings():
        verdicts = watched.score("trouble", ["segfault"] * 8 + ["exit"] * 8, reference="fine")
        assert [outcome(verdict) for verdict in verdicts] == [SIGNAL] * 8 + [EXITED] * 8


def test_a_culprit_in_every_one_of_20_concurrent_groups_harms_no_neighbour(watched: Watched) -> None:
    deeds = ["segfault", "exit", "abort", "kill the parent", "raise", "spin", "garbage", "recurse", "exit 0", "stop"]
    with watched.keeping_its_belongings(), ThreadPoolExecutor(20) as callers:
        replies = callers.map(
            lambda number: watched.score("trouble", group({number % 16: deeds[number % 10]}), reference="fine"),
            range(20),
        )
        for number, verdicts in enumerate(replies):
            check(verdicts, {number % 16: TROUBLE[deeds[number % 10]]})


CHECK_DEEDS = [
    (reward, deed, expected)
    for reward, deed, expected in ALL
    if expected not in (INVALID, HARMLESS) and deed not in ("eat memory and hide it", "grow by 90 and shrink")
]


@pytest.mark.parametrize(("reward", "deed", "expected"), CHECK_DEEDS, ids=[f"{r}: {d}" for r, d, _ in CHECK_DEEDS])
def test_a_task_that_breaks_its_check_costs_its_whole_group_the_numbers_but_takes_no_longer_than_one_item(
    watched: Watched, reward: str, deed: str, expected: Outcome
) -> None:
    with watched.keeping_its_belongings():
        verdicts, seconds = timed_score(watched, reward, HONEST, task={"metadata": {"deed": deed}})
        tell_lateness(deed, seconds, ITEM_LIMIT)
        assert [outcome(verdict) for verdict in verdicts] == [expected] * 16
        assert seconds < ITEM_LIMIT + SLACK


def test_a_task_that_hangs_in_its_check_holds_a_worker_once_not_once_per_shard(watched: Watched) -> None:
    texts = HONEST * 64
    verdicts, seconds = timed_score(watched, "trouble", texts, task={"metadata": {"deed": "spin"}})
    assert {outcome(verdict) for verdict in verdicts} == {TIMEOUT}
    assert seconds < 2 * ITEM_LIMIT + SLACK


def test_a_spoilt_task_is_refused_as_the_callers_mistake(watched: Watched) -> None:
    task = {"metadata": {"spoilt": True}, "reference": "fine"}
    rollouts = [{"completion": text} for text in HONEST]
    status, problem = watched.post("trouble", {"task": task, "rollouts": rollouts})
    assert status == 422
    assert problem["errors"][0]["pointer"] == "/task/metadata/spoilt"


def test_an_empty_group_whose_check_crashes_is_still_answered(watched: Watched) -> None:
    for deed in ("exit", "spin"):
        assert watched.score("trouble", [], task={"metadata": {"deed": deed}}) == []


def test_a_culprit_does_not_delay_other_groups_for_longer_than_its_limit(watched: Watched) -> None:
    """Both workers are held by culprits; an honest group comes a moment later."""
    culprit = threading.Thread(target=watched.score, args=("trouble", ["spin", "spin"]), kwargs={"reference": "fine"})
    culprit.start()
    time.sleep(0.05)
    verdicts, seconds = timed_score(watched, "trouble", HONEST)
    culprit.join()
    check(verdicts, {})
    assert seconds < ITEM_LIMIT + SLACK


def test_a_group_that_passes_its_deadline_gets_what_is_finished_and_its_work_is_stopped(watched: Watched) -> None:
    with watched.keeping_its_belongings():
        before = watched.metric("rewardsvc_workers_ended_total", why="abandoned")
        verdicts, seconds = timed_score(watched, "patient", ["0", "8"], deadline_ms=400)
        assert [outcome(verdict) for verdict in verdicts] == [("scored", "waited"), ("timeout", "deadline")]
        assert 0.39 < seconds < 0.4 + SLACK
        wait_until(lambda: watched.metric("rewardsvc_workers_ended_total", why="abandoned") == before + 1, 2)


class TestRewardsThatSeeTheWholeGroup:
    """The group stands and falls together; the next one is not concerned."""

    def test_are_scored_in_order(self, watched: Watched) -> None:
        verdicts = watched.score("rank", ["a", "bbb", "cc"])
        assert [verdict["reward"] for verdict in verdicts] == [0.0, 1.0, 0.5]

    @pytest.mark.parametrize(("deed", "expected"), [("exit", EXITED), ("hang", TIMEOUT), ("too few", INVALID)])
    def test_lose_all_their_numbers_to_one_culprit(self, watched: Watched, deed: str, expected: Outcome) -> None:
        with watched.keeping_its_belongings():
            verdicts, seconds = timed_score(watched, "rank", ["a", "bbb", deed, "cc"])
            assert [outcome(verdict) for verdict in verdicts] == [expected] * 4
            assert seconds < 0.5 + SLACK
            assert watched.score("rank", ["aaaa", "b"])[0]["reward"] == 1.0

    def test_survive_the_loss_of_their_worker_while_they_wait(self, watched: Watched) -> None:
        with ThreadPoolExecutor(12) as callers:
            culprits = [callers.submit(watched.score, "rank", ["exit", "b", str(n)]) for n in range(6)]
            honest = [callers.submit(watched.score, "rank", ["a", "bbb", "cc" + "c" * n]) for n in range(6)]
            assert {outcome(verdict) for reply in culprits for verdict in reply.result()} == {EXITED}
            assert {verdict["status"] for reply in honest for verdict in reply.result()} == {"scored"}


class TestCoroutineRewards:
    """One process holds them all: a bad one must not take the others with it."""

    @pytest.mark.parametrize(
        ("deed", "expected", "limit"),
        [
            ("hang", TIMEOUT, 1.0),
            ("block", ("timeout", "blocked_event_loop"), 1.0),
            ("exit", EXITED, 0.0),
            ("raise", RAISED, 0.0),
        ],
    )
    def test_a_culprit_in_a_group_of_16_alone_goes_unscored(
        self, watched: Watched, deed: str, expected: Outcome, limit: float
    ) -> None:
        with watched.keeping_its_belongings():
            verdicts, seconds = timed_score(watched, "remote", group({5: deed}))
            tell_lateness(deed, seconds, limit)
            assert outcome(verdicts.pop(5)) == expected
            assert [verdict["reward"] for verdict in verdicts] == [float(t == "fine") for t in group({5: ""}) if t]
            assert seconds < limit + SLACK

    def test_one_hundred_are_under_way_at_once(self, watched: Watched) -> None:
        verdicts, seconds = timed_score(watched, "remote", ["fine"] * 100, task={"metadata": {"pause": 0.5}})
        assert {outcome(verdict) for verdict in verdicts} == {("scored", "compared")}
        assert 0.5 <= seconds < 0.5 + SLACK

    def test_no_more_than_the_reward_allows_are_under_way(self, watched: Watched) -> None:
        _, seconds = timed_score(watched, "remote", ["fine"] * 101, task={"metadata": {"pause": 0.5}})
        assert seconds >= 1.0

    def test_a_coroutine_that_holds_the_loop_takes_no_time_from_the_others(self, watched: Watched) -> None:
        """The other item has used up 0.6 of its 1.0 s when the loop is held, and needs 0.2 s more."""
        with ThreadPoolExecutor(2) as callers:
            other = callers.submit(
                watched.score, "remote", ["fine"], reference="fine", task={"metadata": {"pause": 0.8}}
            )
            time.sleep(0.6)
            culprit = callers.submit(watched.score, "remote", ["block"], reference="fine")
            assert outcome(other.result()[0]) == ("scored", "compared")
            assert outcome(culprit.result()[0]) == ("timeout", "blocked_event_loop")

    def test_work_is_called_off_when_its_caller_has_gone(self, watched: Watched) -> None:
        """A hundred callers leave at once; if their items went on, the next group would have to wait its turn."""
        watched.score("remote", ["fine"] * 100, reference="fine", task={"metadata": {"pause": 0.9}}, deadline_ms=60)
        _, seconds = timed_score(watched, "remote", ["fine"] * 100, task={"metadata": {"pause": 0.3}})
        assert seconds < 0.3 + SLACK


class TestCoroutinesWithTasksOfTheirOwn:
    """What a reward starts beside its own coroutine counts as its own."""

    def test_a_task_that_blocks_is_put_down_to_the_rollout_that_started_it(self, watched: Watched) -> None:
        with watched.keeping_its_belongings():
            verdicts, seconds = timed_score(watched, "errand", group({5: "block in a task"}))
            assert outcome(verdicts.pop(5))[0] == "timeout"
            assert {outcome(verdict) for verdict in verdicts} == {("scored", "compared")}
            assert seconds < 1.0 + SLACK

    def test_a_task_left_behind_that_blocks_harms_nobody_else(self, watched: Watched) -> None:
        with watched.keeping_its_belongings():
            verdicts = watched.score("errand", group({5: "leave a task that blocks"}), reference="fine")
            verdicts += watched.score("errand", HONEST, reference="fine", task={"metadata": {"pause": 0.01}})
            verdicts.pop(5)
            assert {outcome(verdict) for verdict in verdicts} == {("scored", "compared")}

    def test_one_that_does_not_let_itself_be_cancelled_ends_with_its_process(self, watched: Watched) -> None:
        with watched.keeping_its_belongings():
            before = watched.workers
            verdicts, seconds = timed_score(watched, "errand", group({5: "stubborn"}))
            assert outcome(verdicts.pop(5)) == TIMEOUT
            assert {outcome(verdict) for verdict in verdicts} == {("scored", "compared")}
            assert seconds < 0.8 + SLACK
            wait_until(lambda: [worker for worker in before if not worker.is_running()])

    def test_one_that_eats_memory_between_its_steps_is_stopped(self, watched: Watched) -> None:
        with watched.keeping_its_belongings():
            verdicts = watched.score("errand", group({5: "eat"}), reference="fine")
            assert verdicts.pop(5)["status"] in ("resource_limit", "timeout")
            assert {outcome(verdict) for verdict in verdicts} == {("scored", "compared")}

    def test_a_check_that_blocks_costs_its_group_the_numbers_once(self, watched: Watched) -> None:
        with watched.keeping_its_belongings():
            verdicts, seconds = timed_score(watched, "errand", HONEST, task={"metadata": {"deed": "block"}})
            assert {outcome(verdict)[0] for verdict in verdicts} == {"timeout"}
            assert seconds < 1.0 + SLACK

    def test_a_refused_task_is_the_callers_mistake(self, watched: Watched) -> None:
        status, _ = watched.post(
            "errand", {"task": {"metadata": {"deed": "refuse"}}, "rollouts": [{"completion": "a"}]}
        )
        assert status == 422

    def test_a_process_that_is_stopped_from_outside_is_replaced(self, watched: Watched) -> None:
        with watched.keeping_its_belongings():
            for worker in watched.workers:
                worker.suspend()
            task = {"reference": "fine"}
            wait_until(lambda: watched.score("errand", ["fine"], task=task)[0]["status"] == "scored", 6)


def test_a_broken_neighbour_changes_no_byte_of_an_honest_verdict(watched: Watched) -> None:
    def bare(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [verdict | {"timing": None, "cached": None} for verdict in verdicts]

    calm = bare(watched.score("mischief", HONEST, reference="fine"))
    for deed in ("fork", "garbage", "shut sockets", "grow by 90"):
        stormy = bare(watched.score("mischief", group({0: deed}), reference="fine"))
        assert stormy[1:] == calm[1:]


def test_what_a_broken_reward_left_behind_reaches_no_other_reward(watched: Watched) -> None:
    for _ in range(4):
        watched.score("mischief", ["spoil and raise"], reference="fine")
        verdicts = watched.score("trouble", HONEST, reference="fine")
        assert {verdict["status"] for verdict in verdicts} == {"scored"}
