"""From start to end: ready, draining, stopped, killed. Nothing is lost while it stops, nothing is left afterwards."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.http.raw_http import RIGHT, Connection, ask, head, post

if TYPE_CHECKING:
    from tests.conftest import Service, StartService

PLUGINS = Path(__file__).parent.parent / "plugins"
PATIENT, TROUBLE = str(PLUGINS / "patient.py"), str(PLUGINS / "trouble.py")


def eventually(holds: Callable[[], bool], patience: float = 5.0) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + patience
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of these processes runs any more."""
    return not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def is_free(port: int) -> bool:
    """Whether a service could listen here."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def under_way(service: Service, count: int, seconds: float) -> list[Connection]:
    """So many groups of two that take so long, each on a connection of its own and already admitted."""
    connections = []
    for number in range(count):
        group = {"rollouts": [{"completion": f"{seconds + number / 1e6:.6f}"}, {"completion": "0"}]}
        connections.append(Connection(service.port).send(post(group, reward="patient")))
    assert eventually(lambda: service.metric("rewardsvc_in_flight_groups") == count)
    return connections


def readiness(service: Service) -> tuple[int, Any]:
    reply = ask(service.port, head("GET /readyz"), to="GET")
    return reply.status, reply.document


# Start


SLOW_TO_IMPORT = """
import time
from rewardsvc.reward import Case, PerRollout, Verdict
time.sleep(1.5)

class Late(PerRollout):
    "Arrives late."
    name, version = "late", "1"
    cases = [Case.full("a")]

    def score(self, rollout, task, params):
        return Verdict.scored(1.0, "there")
"""


def test_until_it_is_ready_it_lives_and_says_why_not(start_service: StartService, tmp_path: Path) -> None:
    late = tmp_path / "late.py"
    late.write_text(SLOW_TO_IMPORT)
    with start_service(wait=False, workers="1", reward_files=str(late)) as service:
        assert eventually(lambda: answers(service), 20)
        assert ask(service.port, head("GET /livez"), to="GET").status == 200
        status, document = readiness(service)
        assert (status, document["ready"]) == (503, False)
        assert "starting" in " ".join(document["reasons"])
        refused = ask(service.port, post(RIGHT, reward="late"))
        assert (refused.status, refused.slug, refused.headers["retry-after"]) == (503, "not-ready", "1")
        assert eventually(lambda: readiness(service)[0] == 200, 20)
        assert readiness(service)[1] == {"ready": True, "reasons": []}
        assert ask(service.port, post(RIGHT, reward="late")).document["verdicts"][0]["reward"] == 1.0


def answers(service: Service) -> bool:
    try:
        return ask(service.port, head("GET /livez"), to="GET").status == 200
    except OSError:
        return False


def test_a_required_reward_that_is_missing_keeps_it_from_being_ready(start_service: StartService) -> None:
    with start_service(wait=False, workers="1", required_rewards="exact,no_such_reward") as service:
        assert eventually(lambda: answers(service) and "no_such_reward" in str(readiness(service)), 20)
        assert readiness(service)[0] == 503
        assert ask(service.port, head("GET /livez"), to="GET").status == 200
        assert eventually(lambda: '"event":"not_ready"' in service.log.read_text(), 20)
        assert "the required reward no_such_reward is unavailable: it is not installed" in service.log.read_text()
        time.sleep(0.5)
        assert service.log.read_text().count('"event":"not_ready"') == 1


def test_a_port_in_use_stops_the_start_with_a_clear_message(start_service: StartService) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start_service(wait=False, arguments=("--port", str(port))) as service:
            assert service.process.wait(20) > 0
            log = service.log.read_text()
            assert log.startswith(f"Cannot listen on 127.0.0.1:{port}: Address already in use. Another program")
            assert "choose another port (--port or REWARDSVC_PORT)." in log
            assert "Traceback" not in log


# Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_loses_nothing_and_leaves_nothing(
    start_service: StartService, number: signal.Signals
) -> None:
    with start_service(workers="2", reward_files=PATIENT) as service:
        tree = service.tree
        idle = Connection(service.port)
        assert idle.send(head("GET /livez")).reply("GET").status == 200
        groups = under_way(service, 6, 0.4)
        service.process.send_signal(number)
        assert eventually(lambda: readiness(service)[0] == 503)
        assert readiness(service)[1]["reasons"] == ["the service is draining"]
        refused = ask(service.port, post())
        assert (refused.status, refused.slug, refused.headers["retry-after"]) == (503, "not-ready", "1")
        assert refused.problem()["retryable"] is True
        assert idle.send(post()).reply().status == 503
        for connection in groups:
            assert [verdict["reward"] for verdict in connection.reply().document["verdicts"]] == [1.0, 1.0]
        assert service.process.wait(20) == 0
        assert eventually(lambda: gone(tree))
        assert is_free(service.port)
        assert idle.reply().status == 0
        assert "Traceback" not in service.log.read_text()


def test_an_idle_service_stops_at_once(start_service: StartService) -> None:
    with start_service(workers="1") as service:
        tree = service.tree
        with Connection(service.port) as idle:
            idle.send(head("GET /livez")).reply("GET")
            started = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - started < 3
        assert eventually(lambda: gone(tree))


def test_a_signal_to_the_whole_tree_is_a_clean_stop_as_well(start_service: StartService) -> None:
    with start_service(workers="1", reward_files=PATIENT) as service:
        tree = service.tree
        (group,) = under_way(service, 1, 0.5)
        for process in tree:
            process.send_signal(signal.SIGINT)
        assert group.reply().document["group"]["scored"] == 2
        assert service.process.wait(20) == 0
        assert eventually(lambda: gone(tree))


def test_a_second_signal_stops_at_once(start_service: StartService) -> None:
    with start_service(workers="1", reward_files=PATIENT) as service:
        tree = service.tree
        under_way(service, 2, 8)
        service.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: readiness(service)[0] == 503)
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0
        assert time.monotonic() - started < 3
        assert eventually(lambda: gone(tree))


def test_what_is_not_done_by_the_drain_limit_is_refused_with_retry_after(start_service: StartService) -> None:
    with start_service(workers="1", reward_files=PATIENT, drain_seconds="0.3") as service:
        tree = service.tree
        (group,) = under_way(service, 1, 8)
        upload = Connection(service.port).send(post(RIGHT, length=1_000))
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        for connection in (group, upload):
            reply = connection.reply()
            assert (reply.status, reply.slug, reply.headers["retry-after"]) == (503, "not-ready", "1")
        assert service.process.wait(20) == 0
        assert time.monotonic() - started < 5
        assert eventually(lambda: gone(tree))


def test_a_client_that_does_not_read_cannot_keep_it_from_stopping(start_service: StartService) -> None:
    text = "語" * 990
    rollouts = [{"id": f"{number:04}" + "語" * 250, "completion": text} for number in range(4_096)]
    with start_service(workers="1", reply_seconds="0.5") as service, Connection(service.port) as deaf:
        deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.send(post({"task": {"reference": "1"}, "rollouts": rollouts}))
        assert eventually(lambda: service.metric("rewardsvc_group_size_count") == 1)
        started = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - started < 6


# Killed


def test_when_the_front_is_killed_nothing_is_left_behind(start_service: StartService) -> None:
    with start_service(workers="2", reward_files=f"{PATIENT},{TROUBLE}") as service:
        under_way(service, 2, 8)
        tree = service.tree
        assert len(tree) >= 6
        service.process.kill()
        assert eventually(lambda: gone(tree), 3)
        assert eventually(lambda: is_free(service.port))


@pytest.mark.parametrize("deed", ["hang in a regex", "spin", "stop", "daemon"])
def test_when_the_front_is_killed_no_worker_outlives_it_whatever_it_does(
    start_service: StartService, deed: str
) -> None:
    with start_service(workers="1", reward_files=TROUBLE) as service:
        busy = Connection(service.port).send(post({"rollouts": [{"completion": deed}]}, reward="trouble"))
        time.sleep(0.15)
        tree = service.tree
        assert len(tree) >= 4
        service.process.kill()
        assert eventually(lambda: gone(tree), 3)
        busy.close()
