"""A key's quota: exact, refilled evenly, nobody else's business, and waited out by the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.errors import OverQuota
from rewardsvc.http.quota import Quota
from tests.http.raw_http import RIGHT, Reply, ask, head, post

if TYPE_CHECKING:
    from tests.conftest import Service


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def admitted(quota: Quota, key: bytes = b"a") -> bool:
    try:
        quota.take(key)
    except OverQuota:
        return False
    return True


@pytest.mark.parametrize("per_minute", [1, 3, 7, 60, 999])
def test_a_minutes_groups_may_come_at_once_and_not_one_more(per_minute: int) -> None:
    quota = Quota(per_minute, Clock())
    assert sum(admitted(quota) for _ in range(per_minute + 5)) == per_minute


def test_it_refills_evenly_and_says_when() -> None:
    clock = Clock()
    quota = Quota(3, clock)
    assert [admitted(quota) for _ in range(3)] == [True] * 3
    with pytest.raises(OverQuota) as refused:
        quota.take(b"a")
    assert refused.value.retry_after_ms == 20_000
    clock.now += 19.9
    assert not admitted(quota)
    clock.now += 0.1
    assert admitted(quota)
    assert not admitted(quota)


def test_waiting_saves_up_no_more_than_a_minute() -> None:
    clock = Clock()
    quota = Quota(5, clock)
    clock.now += 3600
    assert sum(admitted(quota) for _ in range(20)) == 5


def test_keys_do_not_share() -> None:
    quota = Quota(1, Clock())
    assert [admitted(quota, key) for key in (b"a", b"b", b"a", b"b")] == [True, True, False, False]


def test_no_quota_is_no_limit() -> None:
    assert all(admitted(Quota(0, Clock())) for _ in range(1000))


@given(per_minute=st.integers(1, 50), waits=st.lists(st.floats(0, 30), max_size=200))
def test_no_stretch_of_time_sees_more_than_its_share(per_minute: int, waits: list[float]) -> None:
    clock = Clock()
    quota = Quota(per_minute, clock)
    times = []
    for wait in waits:
        clock.now += wait
        if admitted(quota):
            times.append(clock.now)
    for first in range(len(times)):
        for last in range(first, len(times)):
            share = per_minute * (1 + (times[last] - times[first]) / 60)
            assert last - first + 1 <= share + 1e-6


@pytest.fixture(scope="module")
def limited(run_service: Callable[..., Iterator[Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("quota") / "log"
    yield from run_service(log, workers="1", api_keys="one,two,three", quota_per_minute="2")


def sent(service: Service, key: str, document: Any = RIGHT) -> Reply:
    return ask(service.port, post(document, f"Authorization: Bearer {key}"))


def test_a_key_over_its_quota_is_429_and_others_are_not(limited: Service) -> None:
    for _ in range(5):
        listed = ask(limited.port, head("GET /v1/rewards", "Authorization: Bearer one"), to="GET")
        assert listed.status == 200  # only groups count
    assert [sent(limited, "one").status for _ in range(2)] == [200, 200]
    over = sent(limited, "one")
    assert (over.status, over.slug) == (429, "over-quota")
    assert 0 < over.document["retry_after_ms"] <= 30_000
    assert 0 < int(over.headers["retry-after"]) <= 30
    assert over.document["retryable"] is True
    assert sent(limited, "two").status == 200


def test_a_wrong_key_uses_up_nobodys_quota(limited: Service) -> None:
    assert [sent(limited, "wrong").status for _ in range(5)] == [403] * 5
    assert [sent(limited, "three").status for _ in range(3)] == [200, 200, 429]
