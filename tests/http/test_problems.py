"""Errors, metrics and the log as an operator sees them: complete, documented, and never in the caller's words."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from signal import SIGTERM
from typing import TYPE_CHECKING, Any

import pytest

from rewardsvc import observe
from rewardsvc.errors import PROBLEMS, Internal, Problem
from rewardsvc.http.guard import Guard
from tests.http.raw_http import RIGHT, Connection, Reply, ask, head, post

if TYPE_CHECKING:
    from tests.conftest import Service, StartService

PLUGINS = Path(__file__).parent.parent / "plugins"
CANARY = "c4n4ry"
KEY = "Authorization: Bearer key"
BROKEN_REWARD = "raise RuntimeError('this machine lacks something')\n"


@pytest.fixture(scope="module")
def closed(
    tmp_path_factory: pytest.TempPathFactory, run_service: Callable[..., Iterator[Service]]
) -> Iterator[Service]:
    """A service with a key, little patience, room for one group, and a reward that cannot be used."""
    folder = tmp_path_factory.mktemp("closed")
    (folder / "broken.py").write_text(BROKEN_REWARD)
    files = f"{folder / 'broken.py'},{PLUGINS / 'patient.py'}"
    settings = {"api_keys": "key", "header_seconds": "0.3", "max_groups": "1"}
    yield from run_service(folder / "log", workers="1", reward_files=files, **settings)


def while_busy(service: Service, then: bytes, signal: int | None = None) -> Reply:
    """The reply to a request while another is under way, after the service has got this signal."""
    with Connection(service.port) as busy:
        busy.send(post({"rollouts": [{"completion": "0.5"}]}, KEY, reward="patient"))
        metrics = head("GET /metrics", KEY)
        while b"rewardsvc_in_flight_groups 1.0" not in ask(service.port, metrics, to="GET").body:
            time.sleep(0.01)
        if signal is not None:
            service.process.send_signal(signal)
            while ask(service.port, head("GET /readyz"), to="GET").status == 200:
                time.sleep(0.01)
        reply = ask(service.port, then)
        assert busy.reply().status == 200
        return reply


WAYS: dict[str, Callable[[Service], Reply]] = {
    "malformed-request": lambda service: ask(service.port, b"GET\r\n\r\n"),
    "not-json": lambda service: ask(service.port, post(b"{", KEY)),
    "key-missing": lambda service: ask(service.port, post()),
    "key-wrong": lambda service: ask(service.port, post(RIGHT, "Authorization: Bearer wrong")),
    "not-found": lambda service: ask(service.port, post(RIGHT, KEY, reward="no_such_reward")),
    "method-not-allowed": lambda service: ask(service.port, head("DELETE /v1/rewards", KEY)),
    "request-too-slow": lambda service: ask(service.port, b"POST /v1"),
    "reward-unavailable": lambda service: ask(service.port, post(RIGHT, KEY, reward="broken")),
    "too-large": lambda service: ask(service.port, post(b"", KEY, length=1 << 40)),
    "unsupported-media-type": lambda service: ask(service.port, post(RIGHT, KEY, "Content-Encoding: br")),
    "wrong-shape": lambda service: ask(service.port, post({}, KEY)),
    "over-quota": lambda service: [ask(service.port, post(RIGHT, KEY)) for _ in range(2)][1],
    "overloaded": lambda service: while_busy(service, post(RIGHT, KEY)),
    "not-ready": lambda service: while_busy(service, post(RIGHT, KEY), SIGTERM),
}
NOT_REACHABLE = {Internal.slug: "a fault that nobody foresaw; see the tests of the guard below"}


def test_every_documented_problem_is_reached_or_known_not_to_be() -> None:
    assert {problem.slug for problem in PROBLEMS} == WAYS.keys() | NOT_REACHABLE.keys()
    assert set(PROBLEMS) == set(Problem.__subclasses__())


def check(reply: Reply, slug: str) -> None:
    documented = next(problem for problem in PROBLEMS if problem.slug == slug)
    problem = reply.problem()
    assert problem["type"] == f"/problems/{slug}"
    assert (problem["status"], problem["title"]) == (documented.status, documented.title)
    assert problem["retryable"] is documented.retryable
    assert problem["detail"] and problem["detail"] != problem["title"]
    waits = problem["retry_after_ms"] is not None
    assert waits == documented.retryable == ("retry-after" in reply.headers)


@pytest.mark.parametrize("kind", PROBLEMS, ids=lambda kind: kind.slug)
def test_the_type_of_a_problem_is_a_page_that_explains_it_without_a_key(closed: Service, kind: type[Problem]) -> None:
    reply = ask(closed.port, head(f"GET /problems/{kind.slug}"), to="GET")
    text = unescape(reply.body.decode())
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert kind.title in text
    assert f"HTTP {kind.status}" in text
    meaning, _, remedy = (inspect.getdoc(kind) or "").partition("\n\n")
    assert meaning in text
    assert len(remedy) > 20
    assert remedy.split("`")[0] in text
    assert f'<a href="{kind.slug}">' in ask(closed.port, head("GET /problems/"), to="GET").body.decode()


def test_an_unknown_type_of_problem_is_not_found(closed: Service) -> None:
    assert ask(closed.port, head("GET /problems/no-such"), to="GET").slug == "not-found"


@pytest.mark.parametrize("slug", sorted(WAYS.keys() - {"not-ready", "over-quota"}))
def test_a_problem_is_reached_and_is_as_documented(closed: Service, slug: str) -> None:
    check(WAYS[slug](closed), slug)


def test_the_problem_of_a_key_over_its_quota_is_as_documented(start_service: StartService) -> None:
    with start_service(workers="1", api_keys="key", quota_per_minute="1") as service:
        check(WAYS["over-quota"](service), "over-quota")


def test_the_problem_of_a_service_that_stops_is_as_documented(start_service: StartService) -> None:
    files = str(PLUGINS / "patient.py")
    with start_service(workers="1", reward_files=files, api_keys="key") as service:
        check(WAYS["not-ready"](service), "not-ready")


def test_a_reward_that_cannot_be_used_says_why(closed: Service) -> None:
    assert "lacks something" in WAYS["reward-unavailable"](closed).problem()["detail"]


# Faults of ours


class Recorder:
    """A server that keeps what an application sends."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def receive(self) -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def reply(self) -> Reply:
        start, body = self.messages
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], headers, body["body"])


def guarded(app: Any) -> Recorder:
    """What a guard around an application sends for one request."""
    recorder = Recorder()
    scope = {"type": "http", "method": "GET", "path": "/", "http_version": "1.1", "headers": [(b"host", b"x")]}
    asyncio.run(Guard(app, admit=lambda: None)(scope, recorder.receive, recorder.send))
    return recorder


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError(f"about {CANARY}")


async def failing_halfway(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError(f"about {CANARY}")


def test_a_fault_of_ours_is_500_and_tells_the_caller_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    reply = guarded(failing).reply
    assert (reply.status, reply.slug) == (500, "internal")
    assert CANARY not in reply.body.decode()
    assert "RuntimeError" not in reply.body.decode()
    (logged,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert (logged["event"], logged["error"]) == ("internal_error", "RuntimeError")
    assert logged["request_id"] == reply.problem()["instance"]
    assert CANARY not in json.dumps({name: value for name, value in logged.items() if name != "at"})
    assert any("failing" in place for place in logged["at"])


def test_a_fault_of_ours_in_the_middle_of_a_reply_sends_nothing_more(capfd: pytest.CaptureFixture[str]) -> None:
    assert [message["type"] for message in guarded(failing_halfway).messages] == ["http.response.start"]
    assert "internal_error" in capfd.readouterr().err


# Metrics


METRICS = {
    "rewardsvc_verdicts": {"reward", "status", "reason"},
    "rewardsvc_queue_seconds": {"reward"},
    "rewardsvc_run_seconds": {"reward"},
    "rewardsvc_group_size": {"reward"},
    "rewardsvc_all_equal_groups": {"reward"},
    "rewardsvc_cache_lookups": {"outcome"},
    "rewardsvc_workers_ended": {"kind", "why"},
    "rewardsvc_parent_deaths": set(),
    "rewardsvc_in_flight_groups": set(),
    "rewardsvc_refused_requests": {"problem"},
    "rewardsvc_abandoned_groups": set(),
}
_SAMPLE = re.compile(r"(\w+?)(?:_total|_created|_bucket|_sum|_count)?(?:\{(.*)\})? \S+")


def with_canaries() -> list[bytes]:
    """Requests that are right, wrong or broken, with the canary wherever a caller can write."""
    task = {"prompt": CANARY, "reference": CANARY, "metadata": {CANARY: CANARY}}
    message = {"role": "assistant", "content": CANARY}
    rollouts = [
        {"id": CANARY, "completion": CANARY, "metadata": {CANARY: 1}},
        {"completion": [message], "reference": CANARY},
        {"completion": [{"role": CANARY, "content": ""}]},
        *({"completion": deed} for deed in ("raise", "nan", "exit", "nothing", "wrong id")),
    ]
    right = {"task": task, "rollouts": rollouts}
    return [
        post(right, f"X-{CANARY}: {CANARY}", f"traceparent: {CANARY}", reward="trouble"),
        post(right, "Accept: application/x-ndjson", reward="trouble"),
        post(right, reward="remote"),
        post(right),
        post(right | {"params": {CANARY: CANARY}}),
        post(right | {CANARY: 1}),
        post({"rollouts": [{CANARY: CANARY}]}),
        post({"rollouts": [{"id": CANARY, "completion": ""}] * 2}),
        post(f'{{"{CANARY}": 1, "{CANARY}": 2}}'.encode()),
        post(right, reward=CANARY),
        post(right, f"Authorization: Bearer {CANARY}", f"Content-Encoding: {CANARY}"),
        post(right | {"deadline_ms": 1}, reward="trouble"),
        post({"task": {"metadata": {"spoilt": CANARY}}, "rollouts": []}, reward="trouble"),
        head(f"GET /{CANARY}?{CANARY}={CANARY}"),
        head(f"GET /v1/rewards/{CANARY}"),
        head(f"{CANARY.upper()} /"),
        head("GET /livez", "Connection: upgrade", f"Upgrade: {CANARY}"),
        f"{CANARY}\r\n\r\n".encode(),
    ]


@pytest.fixture(scope="module", params=["debug", "info"])
def visited(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    run_service: Callable[..., Iterator[Service]],
) -> Iterator[Service]:
    """A service that has got all the canaries, at each of the talkative log levels."""
    files = f"{PLUGINS / 'trouble.py'},{PLUGINS / 'remote.py'}"
    log = tmp_path_factory.mktemp("visited") / "log"
    for service in run_service(log, workers="1", reward_files=files, log_level=request.param):
        for sent in with_canaries():
            assert ask(service.port, sent).status in (200, 400, 404, 405, 415, 422)
        yield service


def test_metrics_have_the_documented_names_and_labels_and_no_other(visited: Service) -> None:
    found: dict[str, set[str]] = {}
    for line in visited.call("GET", "/metrics")[2].decode().splitlines():
        if not line.startswith("#"):
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            labels = {pair.split("=")[0] for pair in (sample[2] or "").split(",") if pair}
            found.setdefault(sample[1], set()).update(labels - {"le"})
    assert found == METRICS


def test_no_metric_holds_what_a_caller_wrote(visited: Service) -> None:
    exposition = visited.call("GET", "/metrics")[2].decode()
    assert CANARY not in exposition.lower()
    rewards = set(re.findall(r'reward="([^"]*)"', exposition))
    assert rewards == {"exact", "trouble", "remote"}
    assert set(re.findall(r'problem="([^"]*)"', exposition)) <= {problem.slug for problem in PROBLEMS}


def test_refusals_are_counted_by_their_type(visited: Service) -> None:
    before = visited.metric("rewardsvc_refused_requests_total", problem="not-found")
    ask(visited.port, head("GET /no-such-page"), to="GET")
    ask(visited.port, post(RIGHT, reward="no_such_reward"))
    assert visited.metric("rewardsvc_refused_requests_total", problem="not-found") == before + 2


# The log


def test_the_log_is_json_line_by_line_and_never_quotes_a_caller(visited: Service) -> None:
    text = visited.log.read_text()
    assert CANARY not in text.lower()
    events = [json.loads(line) for line in text.splitlines()]
    assert all({"time", "level", "event"} <= set(event) for event in events)
    assert not [event for event in events if event["event"] == "internal_error"]


def test_each_group_is_one_line_without_its_text(visited: Service) -> None:
    request_ids = [f"line-{number}" for number in range(5)]
    for request_id in request_ids:
        ask(visited.port, post({"rollouts": [{"completion": CANARY}] * 3}, f"X-Request-ID: {request_id}"))
    events = [json.loads(line) for line in visited.log.read_text().splitlines()]
    scored = [event for event in events if event.get("request_id") in request_ids]
    assert [event["request_id"] for event in scored] == request_ids
    assert {event["event"] for event in scored} == {"group_scored"}
    assert set(scored[0]) == {"time", "level", "event", "reward", "request_id", "size", "statuses", "ms"}
    assert scored[0]["size"] == 3


@pytest.mark.parametrize("level", ["warning", "error"])
def test_a_quiet_log_has_no_line_per_request(start_service: StartService, level: str) -> None:
    with start_service(workers="1", log_level=level) as service:
        for sent in (post(), post({}), head("GET /no-such-page"), b"garbage\r\n\r\n", head("GET /livez", "Upgrade: x")):
            ask(service.port, sent)
        assert service.log.read_text() == ""


def test_every_event_of_the_log_goes_through_one_function() -> None:
    """So that what holds for the lines above holds for those that no test provokes."""
    source = Path(observe.__file__).read_text()
    assert source.count("sys.stderr.write") == 1
