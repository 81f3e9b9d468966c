"""Time: clients that are slow to send or to read, clients that leave, deadlines of groups, and replies line by line."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.http.raw_http import RIGHT, Connection, ask, head, post

if TYPE_CHECKING:
    from tests.conftest import Service

HEAD, BODY, REPLY, IDLE = 0.6, 0.9, 0.7, 1.0
"""Seconds that the service of these tests gives its clients."""
LATE = 4.0
"""What a loaded machine may add to any of them."""
NDJSON = "Accept: application/x-ndjson"
_fresh = count(1)


@pytest.fixture(scope="module")
def strict(
    tmp_path_factory: pytest.TempPathFactory, run_service: Callable[..., Iterator[Service]]
) -> Iterator[Service]:
    """A service that has little patience, with the reward `patient`."""
    log = tmp_path_factory.mktemp("strict") / "log"
    limits = {"header_seconds": HEAD, "body_seconds": BODY, "reply_seconds": REPLY, "keep_alive_seconds": IDLE}
    settings = {name: f"{value:g}" for name, value in limits.items()}
    yield from run_service(log, workers="2", reward_files=patient(), **settings)


def patient() -> str:
    return str(Path(__file__).parent.parent / "plugins" / "patient.py")


def seconds(value: float) -> str:
    """A rollout that takes so long, unlike every one before it, so that nothing is cached."""
    return f"{value + next(_fresh) / 1e6:.6f}"


def waiting(*values: float, **request: Any) -> dict[str, Any]:
    """A group whose rollouts take so many seconds."""
    return {"rollouts": [{"completion": seconds(value)} for value in values], **request}


def eventually(holds: Callable[[], bool], patience: float = LATE) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# Slow to send


PARTIAL = {
    "half a request line": b"GET /liv",
    "a head without its end": head("GET /livez")[:-2],
    "empty lines, then half a line": b"\r\n\r\nGET /",
}


@pytest.mark.parametrize("begun", PARTIAL.values(), ids=PARTIAL.keys())
def test_a_head_that_does_not_end_is_408(strict: Service, begun: bytes) -> None:
    with Connection(strict.port) as connection:
        reply = connection.send(begun).reply()
        assert (reply.status, reply.slug) == (408, "request-too-slow")
        assert reply.problem()["retryable"] is True
        assert HEAD <= connection.closed_after() < HEAD + LATE


def test_a_head_byte_by_byte_is_408(strict: Service) -> None:
    with Connection(strict.port) as connection:
        for byte in head("GET /livez")[:-1]:
            try:
                connection.send(bytes([byte]))
            except ConnectionError:
                break
            time.sleep(0.1)
        assert connection.closed_after() < HEAD + LATE


def test_a_body_that_does_not_end_is_408(strict: Service) -> None:
    for request in (
        post(RIGHT, length=10_000),
        head("POST /v1/rewards/exact", "Content-Type: application/json", "Transfer-Encoding: chunked") + b"5\r\n{",
    ):
        with Connection(strict.port) as connection:
            reply = connection.send(request).reply()
            assert (reply.status, reply.slug) == (408, "request-too-slow")
            assert BODY <= connection.closed_after() < BODY + LATE


def test_a_body_that_trickles_on_after_its_refusal_is_cut_off(strict: Service) -> None:
    with Connection(strict.port) as connection:
        assert connection.send(post(b"", length=100_000_000)).reply().status == 413
        with pytest.raises(ConnectionError):
            for _ in range(100):
                connection.send(b" ")
                time.sleep(0.1)
        assert time.monotonic() - connection.opened < BODY + LATE


def test_a_connection_that_says_nothing_is_closed_without_a_word(strict: Service) -> None:
    with Connection(strict.port) as connection:
        assert connection.reply().status == 0
        assert HEAD <= connection.closed_after() < HEAD + LATE


@pytest.mark.parametrize("between", [b"", b"\r\n", b"\r"], ids=["nothing", "an empty line", "half of one"])
def test_an_idle_connection_is_closed_whatever_empty_lines_it_sends(strict: Service, between: bytes) -> None:
    with Connection(strict.port) as connection:
        assert connection.send(post()).reply().status == 200
        connection.send(between)
        assert connection.closed_after() < IDLE + LATE


def test_a_connection_in_use_is_not_closed(strict: Service) -> None:
    with Connection(strict.port) as connection:
        while time.monotonic() - connection.opened < HEAD + BODY + IDLE:
            assert connection.send(post()).reply().status == 200
            time.sleep(0.3)
        assert connection.send(post(waiting(BODY + IDLE), reward="patient")).reply().status == 200


def test_a_slow_request_behind_another_does_not_cost_that_one_its_reply(strict: Service) -> None:
    for behind in (b"GET /li", post(RIGHT, length=10_000)):
        with Connection(strict.port) as connection:
            connection.send(post(waiting(BODY + 0.3), reward="patient") + behind)
            assert connection.reply().document["group"]["scored"] == 1
            assert connection.reply().status == 0


def test_150_slow_clients_do_not_disturb_a_healthy_one(strict: Service) -> None:
    begun = [b"GET /", post(RIGHT, length=1_000), post(b"", "Expect: 100-continue", length=100)]
    slow = [Connection(strict.port).send(begun[number % 3]) for number in range(150)]
    started = time.monotonic()
    for _ in range(30):
        assert ask(strict.port, post()).status == 200
    healthy = time.monotonic() - started
    closed = [connection.closed_after() for connection in slow]
    for connection in slow:
        connection.close()
    assert healthy < LATE
    assert max(closed) < max(HEAD, BODY) + LATE


# Slow to read


def big_group() -> dict[str, Any]:
    """A group whose reply is about 16 MB, more than the kernel keeps for a reader."""
    answers = [f"{number:04} " + "語" * 990 for number in range(4_096)]
    return {
        "task": {"reference": "1"},
        "rollouts": [{"id": "語" * 250 + text[:4], "completion": text} for text in answers],
    }


@pytest.mark.parametrize(
    "fields", [(), ("Connection: close",), (NDJSON,)], ids=["kept alive", "closing", "line by line"]
)
def test_a_client_that_does_not_read_its_reply_is_cut_off(strict: Service, fields: tuple[str, ...]) -> None:
    before = connections(strict)
    with Connection(strict.port) as connection:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.send(post(big_group(), *fields))
        assert eventually(lambda: connections(strict) > before)
        assert eventually(lambda: connections(strict) == before, 10)
    assert ask(strict.port, post()).status == 200


def connections(service: Service) -> int:
    """How many connections the front holds."""
    return sum(link.status == "ESTABLISHED" for link in psutil.Process(service.process.pid).net_connections("tcp"))


def test_a_big_reply_arrives_whole_when_it_is_read(strict: Service) -> None:
    reply = ask(strict.port, post(big_group()))
    assert reply.document["group"]["size"] == 4_096


# Deadlines of groups


def test_at_its_deadline_a_group_is_answered_with_what_there_is(strict: Service) -> None:
    reply = ask(strict.port, post(waiting(0, 0.001, 5, deadline_ms=50), reward="patient"))
    assert reply.status == 200
    verdicts = reply.document["verdicts"]
    assert [verdict["status"] for verdict in verdicts] == ["scored", "scored", "timeout"]
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 1.0, None]
    assert verdicts[2]["reason"] == "deadline"
    assert reply.document["group"]["scored"] == 2


def test_a_reply_is_out_at_its_deadline(strict: Service) -> None:
    """The best of some tries: a busy machine is no fault of the code."""

    def seconds() -> float:
        started = time.monotonic()
        reply = ask(strict.port, post(waiting(5, deadline_ms=200), reward="patient"))
        assert reply.document["verdicts"][0]["reason"] == "deadline"
        return time.monotonic() - started

    assert any(seconds() < 0.25 for _ in range(10))


def test_the_work_behind_a_passed_deadline_is_stopped(strict: Service) -> None:
    assert ask(strict.port, post(waiting(8, 8, deadline_ms=50), reward="patient")).status == 200
    started = time.monotonic()
    assert ask(strict.port, post(waiting(0, 0), reward="patient")).document["group"]["scored"] == 2
    assert time.monotonic() - started < LATE


# Clients that leave


@pytest.mark.parametrize("fields", [(), (NDJSON,)], ids=["whole reply", "line by line"])
def test_when_the_client_leaves_its_work_is_stopped_and_counted(strict: Service, fields: tuple[str, ...]) -> None:
    abandoned = strict.metric("rewardsvc_abandoned_groups_total")
    stopped = strict.metric("rewardsvc_workers_ended_total", why="abandoned")
    with Connection(strict.port) as connection:
        connection.send(post(waiting(8, 8), *fields, reward="patient"))
        time.sleep(0.05)
    assert eventually(lambda: strict.metric("rewardsvc_abandoned_groups_total") == abandoned + 1, 2)
    assert eventually(lambda: strict.metric("rewardsvc_workers_ended_total", why="abandoned") > stopped)
    assert strict.metric("rewardsvc_in_flight_groups") == 0
    started = time.monotonic()
    assert ask(strict.port, post(waiting(0, 0), reward="patient")).document["group"]["scored"] == 2
    assert time.monotonic() - started < LATE


def test_work_that_somebody_else_waits_for_goes_on(strict: Service) -> None:
    group = waiting(0.5)
    with Connection(strict.port) as stays:
        with Connection(strict.port) as leaves:
            leaves.send(post(group, reward="patient"))
            time.sleep(0.1)
            stays.send(post(group, reward="patient"))
            time.sleep(0.1)
        assert stays.reply().document["verdicts"][0]["reward"] == 1.0


# Line by line


def test_verdicts_arrive_as_they_are_ready_and_then_the_group(strict: Service) -> None:
    with Connection(strict.port) as connection:
        connection.send(post(waiting(2, 0), NDJSON, "X-Request-ID: lines", reward="patient"))
        assert connection.head() == 200
        first = json.loads(connection.chunk())
        early = time.monotonic() - connection.opened
        second, last = json.loads(connection.chunk()), json.loads(connection.chunk())
        assert connection.chunk() == b""
    assert early < 1.5
    assert (first["id"], second["id"]) == ("1", "0")
    assert (last["request_id"], last["reward"], last["group"]["size"]) == ("lines", "patient", 2)
    assert "verdicts" not in last


def test_the_lines_say_what_the_whole_reply_says(strict: Service) -> None:
    rollouts = [{"id": f"r{number}", "completion": str(number)} for number in range(20)]
    group = {"task": {"reference": "7"}, "rollouts": [*rollouts, {"completion": []}]}
    whole = ask(strict.port, post(group)).document
    reply = ask(strict.port, post(group, NDJSON))
    assert reply.headers["content-type"] == "application/x-ndjson"
    *lines, end = map(json.loads, reply.body.splitlines())
    untimed = {"timing": None, "cached": None}
    assert sorted((line | untimed for line in lines), key=lambda line: line["id"]) == sorted(
        (verdict | untimed for verdict in whole["verdicts"]), key=lambda verdict: verdict["id"]
    )
    assert end["group"] == whole["group"]


def test_an_empty_group_line_by_line_is_one_line(strict: Service) -> None:
    (line,) = ask(strict.port, post({"rollouts": []}, NDJSON)).body.splitlines()
    assert json.loads(line)["group"]["size"] == 0


def test_a_deadline_ends_the_lines_in_time(strict: Service) -> None:
    reply = ask(strict.port, post(waiting(0, 8, deadline_ms=200), NDJSON, reward="patient"))
    *lines, end = map(json.loads, reply.body.splitlines())
    assert sorted(line["status"] for line in lines) == ["scored", "timeout"]
    assert end["group"]["scored"] == 1


NO_ASSISTANT = {"completion": [{"role": "user", "content": "1"}]}


@pytest.mark.parametrize(
    ("document", "reward", "status"),
    [
        (b"{", "exact", 400),
        ({"rollouts": [{"id": 1, "completion": "1"}]}, "exact", 422),
        ({"rollouts": [{"completion": "1"}], "params": {"no_such": 1}}, "exact", 422),
        ({"rollouts": [NO_ASSISTANT, {"completion": "1"}], "params": {"no_such": 1}}, "exact", 422),
        ({"rollouts": []}, "no_such_reward", 404),
        ({"task": {"prompt": "a" * 1_048_577}, "rollouts": []}, "exact", 413),
    ],
    ids=["no JSON", "wrong shape", "wrong params", "wrong params and a bad item", "no such reward", "too large"],
)
def test_what_is_wrong_before_the_first_line_is_still_a_problem(
    strict: Service, document: Any, reward: str, status: int
) -> None:
    reply = ask(strict.port, post(document, NDJSON, reward=reward))
    assert reply.status == status
    reply.problem()
