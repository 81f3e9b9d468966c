"""Verdicts computed once: what is kept, for how long, under which key, and who shares one that is under way."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.cache import Cache, context_hash, key
from rewardsvc.contract import Timing, Verdict

if TYPE_CHECKING:
    from tests.conftest import Service


def verdict(number: int = 0, size: int = 0) -> Verdict:
    return Verdict.scored(1.0, "equal", answer=str(number) + "x" * size)


class TestStore:
    def test_what_was_put_comes_back_marked_as_cached_and_as_having_taken_no_time(self) -> None:
        cache = Cache(10_000)
        given = verdict(7)
        given.timing = Timing(1.0, 2.0)
        cache.put(b"a", (given,))
        (got,) = cache.get(b"a") or []
        assert (got.reward, got.reason, got.answer) == (1.0, "equal", "7")
        assert (got.cached, got.timing) == (True, Timing(0.0, 0.0))
        assert cache.get(b"b") is None

    def test_each_reader_gets_a_copy_of_its_own(self) -> None:
        cache = Cache(10_000)
        cache.put(b"a", (verdict(),))
        (first,) = cache.get(b"a") or []
        first.id, first.evidence["mine"] = "somebody", 1
        (second,) = cache.get(b"a") or []
        assert (second.id, second.evidence) == ("", {})

    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3000)), max_size=60))
    def test_it_never_takes_more_than_its_limit_and_counts_right(self, puts: list[tuple[int, int]]) -> None:
        cache = Cache(8_000)
        for name, size in puts:
            cache.put(b"%d" % name, (verdict(name, size),))
            assert cache.size_bytes <= 8_000
        assert (cache.size_bytes > 0) == (len(cache) > 0)
        for name, _ in puts:
            got = cache.get(b"%d" % name)
            assert got is None or got[0].answer[: len(str(name))] == str(name)  # type: ignore[index]

    def test_the_least_recently_used_goes_first(self) -> None:
        cache = Cache(10**6)
        for name in (b"a", b"b", b"c"):
            cache.put(name, (verdict(),))
        full = Cache(cache.size_bytes)
        for name in (b"a", b"b", b"c"):
            full.put(name, (verdict(),))
        assert full.get(b"a") is not None
        full.put(b"d", (verdict(),))
        assert [name for name in (b"a", b"b", b"c", b"d") if full.get(name)] == [b"a", b"c", b"d"]

    def test_an_entry_larger_than_the_whole_cache_throws_nothing_out(self) -> None:
        cache = Cache(2_000)
        cache.put(b"small", (verdict(),))
        cache.put(b"large", (verdict(size=5_000),))
        assert cache.get(b"large") is None
        assert cache.get(b"small") is not None

    def test_a_cache_of_no_size_keeps_nothing(self) -> None:
        cache = Cache(0)
        cache.put(b"a", (verdict(),))
        assert (len(cache), cache.size_bytes, cache.get(b"a")) == (0, 0, None)

    @pytest.mark.parametrize(
        "status", ["timeout", "crashed", "bad_reference", "bad_item", "plugin_error", "unavailable"]
    )
    def test_a_verdict_without_a_number_is_not_kept(self, status: Any) -> None:
        cache = Cache(10_000)
        cache.put(b"a", (verdict(), Verdict.not_scored(status, "why")))
        assert cache.get(b"a") is None


PARTS: dict[str, Any] = {"reward": "exact", "version": "1", "task": b"task", "params": b"params"}


def key_of(payload: bytes = b"payload", **changes: Any) -> bytes:
    return key(context_hash(*(PARTS | changes).values()), payload)


class TestKey:
    @pytest.mark.parametrize("part", PARTS)
    def test_it_depends_on(self, part: str) -> None:
        assert key_of(**{part: PARTS[part] + type(PARTS[part])()}) == key_of()
        assert key_of(**{part: PARTS[part] + PARTS[part][:1]}) != key_of()

    def test_it_depends_on_the_completion(self) -> None:
        assert key_of(b"payload") != key_of(b"payloae")

    def test_moving_a_letter_between_parts_changes_it(self) -> None:
        assert key_of(reward="exact1", version="") != key_of(reward="exact", version="1")
        assert key_of(task=b"taskp", params=b"arams") != key_of(task=b"task", params=b"params")

    def test_the_context_can_be_used_many_times(self) -> None:
        context = context_hash("a")
        assert key(context, b"1") == key(context, b"1") != key(context, b"2")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the plugin `patient` writes a line whenever it runs."""
    file = tmp_path / "runs"
    file.touch()
    return file


def runs(log: Path) -> int:
    return len(log.read_text().splitlines())


def ask(service: Service, log: Path, texts: list[str], **request: Any) -> list[dict[str, Any]]:
    return list(service.score("patient", texts, task={"metadata": {"log": str(log)}}, **request))


def judged(verdicts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [verdict | {"timing": None, "cached": None} for verdict in verdicts]


class TestInTheService:
    def test_a_second_request_is_answered_without_running_again(self, service_with_plugins: Service, log: Path) -> None:
        first = ask(service_with_plugins, log, ["0 a", "0 b"])
        second = ask(service_with_plugins, log, ["0 b", "0 a", "0 c"])
        assert runs(log) == 3
        assert [verdict["cached"] for verdict in first + second] == [False, False, True, True, False]
        assert second[0]["timing"] == {"queue_ms": 0.0, "run_ms": 0.0}

    def test_identical_rollouts_of_one_group_run_once_and_each_gets_a_verdict(
        self, service_with_plugins: Service, log: Path
    ) -> None:
        verdicts = ask(service_with_plugins, log, ["0 same"] * 16)
        assert runs(log) == 1
        assert [verdict["id"] for verdict in verdicts] == [str(index) for index in range(16)]
        assert all(judged(verdicts)[0] | {"id": verdict["id"]} == judged([verdict])[0] for verdict in verdicts)

    def test_the_id_of_a_rollout_is_no_part_of_the_key(self, service_with_plugins: Service, log: Path) -> None:
        task = {"metadata": {"log": str(log)}}
        for name in ("x", "y"):
            request = {"task": task, "rollouts": [{"id": name, "completion": "0 named"}]}
            status, reply = service_with_plugins.post("patient", request)
            assert (status, reply["verdicts"][0]["id"]) == (200, name)
        assert runs(log) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"task": {"reference": "r"}},
            {"task": {"prompt": "p"}},
            {"task": {"metadata": {"more": 1}}},
            {"rollout": {"reference": "r"}},
            {"rollout": {"metadata": {"more": 1}}},
            {"rollout": {"completion": "0 changed "}},
            {"rollout": {"completion": [{"role": "assistant", "content": "0 changed"}]}},
        ],
        ids=lambda change: json.dumps(change)[:60],
    )
    def test_whatever_a_verdict_may_depend_on_is_part_of_the_key(
        self, service_with_plugins: Service, log: Path, change: dict[str, Any]
    ) -> None:
        def post(task: dict[str, Any], rollout: dict[str, Any]) -> None:
            metadata = {"log": str(log)} | task.pop("metadata", {})
            rollouts = [{"completion": "0 changed"} | rollout]
            status, reply = service_with_plugins.post(
                "patient", {"task": {"metadata": metadata} | task, "rollouts": rollouts}
            )
            assert (status, reply["verdicts"][0]["reward"]) == (200, 1.0)

        post({}, {})
        post(dict(change.get("task", {})), dict(change.get("rollout", {})))
        assert runs(log) == 2

    def test_params_are_part_of_the_key(self, service_with_plugins: Service) -> None:
        rewards = [
            service_with_plugins.score("exact", ["Yes"], reference="yes", params={"ignore_case": ignore})[0]["reward"]
            for ignore in (True, False, True, False)
        ]
        assert rewards == [1.0, 0.0, 1.0, 0.0]

    def test_a_reward_that_is_not_deterministic_is_never_kept(self, service_with_plugins: Service) -> None:
        verdicts = [service_with_plugins.score("remote", ["a", "a"], reference="a") for _ in range(2)]
        assert not any(verdict["cached"] for group in verdicts for verdict in group)

    def test_a_failure_is_not_kept(self, service_with_plugins: Service, log: Path) -> None:
        for _ in range(2):
            (verdict,) = ask(service_with_plugins, log, ["no number"])
            assert (verdict["status"], verdict["cached"]) == ("plugin_error", False)
        assert runs(log) == 2

    def test_a_group_judged_as_a_whole_is_kept_as_a_whole(self, service_with_plugins: Service) -> None:
        texts = ["whole", "who", "w"]
        first = service_with_plugins.score("rank", texts)
        second = service_with_plugins.score("rank", texts)
        other = service_with_plugins.score("rank", texts[:2])
        assert [verdict["cached"] for verdict in first + second + other] == [False] * 3 + [True] * 3 + [False] * 2
        assert judged(first) == judged(second)
        assert [verdict["reward"] for verdict in other] == [1.0, 0.0]


class TestTwins:
    def test_the_same_request_100_times_at_once_runs_once_and_all_replies_have_the_same_bytes(
        self, service_with_plugins: Service, log: Path
    ) -> None:
        rollouts = [{"completion": f"0.3 {number}"} for number in range(2)]
        body = json.dumps({"task": {"metadata": {"log": str(log)}}, "rollouts": rollouts})
        headers = {"content_type": "application/json", "x_request_id": "twin"}
        with ThreadPoolExecutor(100) as callers:
            calls = [
                callers.submit(service_with_plugins.call, "POST", "/v1/rewards/patient", body, **headers)  # type: ignore[arg-type]
                for _ in range(100)
            ]
            replies = [call.result() for call in calls]
        assert runs(log) == 2
        assert {status for status, _, _ in replies} == {200}
        assert len({reply for _, _, reply in replies}) == 1

    def test_a_whole_group_100_times_at_once_has_one_reply(self, service_with_plugins: Service) -> None:
        with ThreadPoolExecutor(100) as callers:
            groups = list(
                callers.map(lambda _: judged(service_with_plugins.score("rank", ["tw", "i", "ns"])), range(100))
            )
        assert all(group == groups[0] for group in groups)

    def test_a_twin_whose_first_caller_went_away_still_gets_its_verdict(
        self, service_with_plugins: Service, log: Path
    ) -> None:
        with ThreadPoolExecutor(2) as callers:
            first = callers.submit(ask, service_with_plugins, log, ["0.8 left"], deadline_ms=300)
            time.sleep(0.15)
            second = callers.submit(ask, service_with_plugins, log, ["0.8 left"])
            assert first.result()[0]["status"] == "timeout"
            assert second.result()[0]["status"] == "scored"
        assert runs(log) == 1

    def test_one_who_comes_after_all_callers_went_away_is_not_kept_waiting(
        self, service_with_plugins: Service, log: Path
    ) -> None:
        assert ask(service_with_plugins, log, ["0.4 late"], deadline_ms=50)[0]["status"] == "timeout"
        for pause in (0.0, 0.03, 0.06, 0.2):
            time.sleep(pause)
            assert ask(service_with_plugins, log, ["0.4 late"], deadline_ms=5_000)[0]["status"] == "scored"

    def test_a_twin_with_a_longer_deadline_is_not_hurt_by_one_with_a_shorter(
        self, service_with_plugins: Service, log: Path
    ) -> None:
        with ThreadPoolExecutor(6) as callers:
            calls: list[Future[list[dict[str, Any]]]] = []
            for deadline in (100, 5_000, 200, 5_000, 300, 5_000):
                calls.append(
                    callers.submit(ask, service_with_plugins, log, ["0.6 long", "0.6 longer"], deadline_ms=deadline)
                )
                time.sleep(0.02)
            statuses = [{verdict["status"] for verdict in call.result()} for call in calls]
        assert statuses == [{"timeout"}, {"scored"}] * 3
        assert runs(log) == 2

    def test_a_shared_failure_is_shared_and_then_forgotten(self, service_with_plugins: Service) -> None:
        with ThreadPoolExecutor(2) as callers:
            both = list(callers.map(lambda _: service_with_plugins.score("rank", ["hang", "on"]), range(2)))
        assert {(verdict["status"], verdict["cached"]) for group in both for verdict in group} == {("timeout", False)}
        assert service_with_plugins.score("rank", ["hang", "on"])[0]["cached"] is False
