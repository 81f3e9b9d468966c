"""What every caller can rely on, tried on both clients against a service that follows a script."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rewardsvc.client import core
from rewardsvc.contract import ResourceInfo, RewardInfo, ScoreRequest
from rewardsvc.errors import DeadlineExceeded, ServiceRefused, ServiceUnreachable

Script = Callable[..., Any]
Connect = Callable[..., Any]

BUSY: Any = (503, {"type": "/problems/overloaded", "detail": "busy", "retryable": True, "retry_after_ms": 300}, {})
INFO = RewardInfo(
    name="exact",
    version="1",
    summary="",
    description="",
    range=(0.0, 1.0),
    per_group=False,
    deterministic=True,
    resources=ResourceInfo(kind="cpu", item_timeout=1.0, memory_mb=64),
    wheel="rewardsvc",
    params={},
    reference={},
    parts=[],
    reasons={},
    cases=[],
)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_group_is_posted_as_json_with_key_and_request_id(script: Script, connect: Connect, good: Any) -> None:
    service = script(good)
    reply = connect(service.url, api_key="secret").score("exact", ["42"], reference="42", request_id="step-7")
    assert [verdict.reward for verdict in reply.verdicts] == [1.0]
    request = service.seen[0]
    assert request.line == "POST /v1/rewards/exact HTTP/1.1"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-request-id"] == "step-7"
    assert msgspec.json.decode(request.body, type=ScoreRequest).task.reference == "42"


def test_calls_use_one_connection_and_different_request_ids(script: Script, connect: Connect, good: Any) -> None:
    service = script(good)
    client = connect(service.url)
    for _ in range(3):
        client.score("exact", ["42"])
    assert service.connections == [0, 0, 0]
    assert len({seen.headers["x-request-id"] for seen in service.seen}) == 3


def test_a_503_is_waited_out_under_the_same_request_id(script: Script, connect: Connect, good: Any) -> None:
    service = script(BUSY, (503, b"<html>", {"Retry-After": "1"}), good)
    assert connect(service.url).score("exact", ["42"]).verdicts[0].reward == 1.0
    first, second, third = service.seen
    assert len({seen.headers["x-request-id"] for seen in service.seen}) == 1
    assert second.at - first.at >= 0.3
    assert third.at - second.at >= 1.0
    assert third.deadline_ms <= second.deadline_ms - 1000 < first.deadline_ms - 1000


def test_a_429_is_retried_too(script: Script, connect: Connect, good: Any) -> None:
    service = script((429, b"", {}), good)
    assert connect(service.url).score("exact", ["42"]).verdicts[0].reward == 1.0


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500, 307])
def test_nothing_else_is_retried(script: Script, connect: Connect, status: int) -> None:
    service = script((status, {"type": "/problems/some-slug", "detail": "no"}, {"Retry-After": "0", "Location": "/"}))
    with pytest.raises(ServiceRefused) as refused:
        connect(service.url).score("exact", ["42"])
    assert (refused.value.status, refused.value.slug, len(service.seen)) == (status, "some-slug", 1)


def test_a_wait_that_would_outlast_the_deadline_is_not_begun(script: Script, connect: Connect) -> None:
    service = script((503, b"", {"Retry-After": "30"}))
    started = time.monotonic()
    with pytest.raises(ServiceRefused) as refused:
        connect(service.url, timeout=5.0).score("exact", ["42"])
    assert time.monotonic() - started < 4.0
    assert (refused.value.retry_after, refused.value.retryable) == (30.0, True)


@pytest.mark.parametrize("accident", ["silence", "drip"])
def test_the_deadline_ends_a_call_that_is_not_answered(script: Script, connect: Connect, accident: str) -> None:
    service = script(accident)
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="/v1/rewards/exact"):
        connect(service.url, timeout=0.5).score("exact", ["42"])
    assert 0.45 < time.monotonic() - started < 3.0
    assert len(service.seen) == 1


def test_the_deadline_ends_an_upload_that_nobody_reads(connect: Connect) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(DeadlineExceeded):
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        connect(url, timeout=0.5).score("exact", ["x" * 1_000_000] * 20)
    assert 0.45 < time.monotonic() - started < 3.0


def test_the_deadline_covers_all_tries_together(script: Script, connect: Connect) -> None:
    service = script(BUSY)
    started = time.monotonic()
    with pytest.raises(ServiceRefused, match="busy"):
        connect(service.url, timeout=1.0).score("exact", ["42"])
    assert time.monotonic() - started < 3.0
    assert 2 <= len(service.seen) <= 4


def test_the_service_is_told_the_time_that_remains(script: Script, connect: Connect, good: Any) -> None:
    service = script(good)
    client = connect(service.url, timeout=10.0)
    client.score("exact", ["42"])
    client.score("exact", ["42"], deadline_ms=700)
    client.score("exact", ["42"], deadline_ms=60_000)
    assert 9_000 < service.seen[0].deadline_ms < 9_800
    assert service.seen[1].deadline_ms == 700
    assert 9_000 < service.seen[2].deadline_ms < 9_800


def test_a_keep_alive_connection_that_the_service_closed_is_replaced_without_waiting(
    script: Script, connect: Connect, good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "FIRST_WAIT_S", 60.0)  # a call that waited would be too late
    monkeypatch.setattr(core, "LONGEST_WAIT_S", 60.0)
    service = script(good)
    client = connect(service.url, timeout=20.0)
    client.score("exact", ["42"])
    service.hang_up()
    assert client.score("exact", ["42"]).verdicts[0].reward == 1.0
    assert service.connections == [0, 1]


@pytest.mark.parametrize("accident", ["drop", "truncate"])
def test_a_connection_lost_in_the_middle_is_retried(script: Script, connect: Connect, good: Any, accident: str) -> None:
    service = script(accident, accident, good)
    assert connect(service.url).score("exact", ["42"]).verdicts[0].reward == 1.0
    assert service.connections == [0, 1, 2]
    assert len({seen.headers["x-request-id"] for seen in service.seen}) == 1


def test_a_reply_that_announces_the_end_of_the_connection_is_read(script: Script, connect: Connect, good: Any) -> None:
    service = script((*good[:2], {"Connection": "close"}))
    client = connect(service.url)
    for _ in range(2):
        assert client.score("exact", ["42"]).verdicts[0].reward == 1.0
    assert service.connections == [0, 1]


def test_a_proxy_in_the_environment_is_not_used(
    script: Script, connect: Connect, good: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert connect(script(good).url, timeout=5.0).score("exact", ["42"]).verdicts[0].reward == 1.0


def test_no_answer_is_unreachable_once_the_deadline_allows_no_more_waiting(
    script: Script, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "FIRST_WAIT_S", 60.0)
    monkeypatch.setattr(core, "LONGEST_WAIT_S", 60.0)
    with pytest.raises(ServiceUnreachable, match="/v1/rewards/exact"):
        connect(script("drop").url, timeout=20.0).score("exact", ["42"])


def test_an_address_where_nobody_listens_is_given_up_soon_and_named(connect: Connect) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    started = time.monotonic()
    with pytest.raises(ServiceUnreachable, match=f"No reward service is at {url}.*rewardsvc serve"):
        connect(url, absent=0.5).score("exact", ["42"])
    assert time.monotonic() - started < 10  # of the 60 that a call has


def test_a_name_that_does_not_resolve_is_given_up_soon_and_named(connect: Connect) -> None:
    with pytest.raises(ServiceUnreachable, match=r"No reward service is at http://nowhere\.invalid:1 "):
        connect("http://nowhere.invalid:1", absent=0.0).score("exact", ["42"])


def test_a_service_that_starts_late_is_still_reached(script: Script, connect: Connect, good: Any) -> None:
    port = closed_port()
    timer = threading.Timer(0.3, lambda: script(good, port=port))
    timer.start()
    assert connect(f"http://127.0.0.1:{port}", timeout=20.0).score("exact", ["42"]).verdicts[0].reward == 1.0
    timer.join()


def test_a_value_that_json_does_not_know_is_a_mistake_of_the_caller(
    script: Script, connect: Connect, good: Any
) -> None:
    service = script(good)
    client = connect(service.url)
    with pytest.raises(TypeError):
        client.score("exact", ["42"], reference=object())
    assert client.score("exact", ["42"]).verdicts[0].reward == 1.0
    assert len(service.seen) == 1


def test_a_group_of_several_mebibytes_arrives_whole(script: Script, connect: Connect, good: Any) -> None:
    service = script(BUSY, good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect(service.url).score("exact", ["é" * 500_000] * 4)
    for seen in service.seen:
        assert (
            sum(len(rollout.text) for rollout in msgspec.json.decode(seen.body, type=ScoreRequest).rollouts)
            == 2_000_000
        )


def test_the_catalogue_is_read(script: Script, connect: Connect) -> None:
    service = script((200, {"rewards": [INFO]}, {}), (200, INFO, {}))
    client = connect(service.url + "/prefix/")
    assert client.rewards() == [INFO]
    assert client.reward("exact") == INFO
    assert [seen.line.split()[1] for seen in service.seen] == ["/prefix/v1/rewards", "/prefix/v1/rewards/exact"]


@pytest.mark.parametrize(("step", "expected"), [((200, b"", {}), True), ((503, b"", {}), False), ("drop", False)])
def test_readiness_is_a_plain_yes_or_no(script: Script, connect: Connect, step: Any, expected: bool) -> None:
    assert connect(script(step).url).ready() is expected


def test_a_service_that_is_not_there_is_not_ready(connect: Connect) -> None:
    assert connect(f"http://127.0.0.1:{closed_port()}").ready() is False


def test_a_stale_connection_does_not_make_a_service_unready(script: Script, connect: Connect) -> None:
    service = script((200, b"", {}))
    client = connect(service.url)
    assert client.ready()
    service.hang_up()
    assert client.ready()


def test_an_address_without_readiness_is_not_taken_for_a_service(script: Script, connect: Connect) -> None:
    with pytest.raises(ServiceRefused, match="404"):
        connect(script((404, b"", {})).url).ready()
