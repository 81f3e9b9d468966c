"""Every metric and every log event by name. No label and no log field ever holds text that a caller or a policy wrote.

One log line and a handful of counter updates per group. Both are on the way of every group, hence two small pieces of
our own: times per verdict go into plain lists of bucket counts, because sixteen locked histogram updates would cost
more than judging sixteen short answers, and a log line is one JSON object written in one call.
"""

from __future__ import annotations

import sys
import traceback
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from rewardsvc.errors import SettingsFault

REGISTRY = CollectorRegistry()
_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Buckets(Collector):
    """A histogram by reward that is updated from one thread only: a list of counts per reward."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], unit: float = 1.0) -> None:
        """`bounds` as they are shown; observed values are in multiples of `unit` (0.001: bounds in s, values in ms)."""
        self._name, self._text, self._unit = name, text, unit
        self._labels = [*map(str, bounds), "+Inf"]
        self._bounds = [bound / unit for bound in bounds]
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}
        REGISTRY.register(self)

    def observe(self, reward: str, values: Sequence[float]) -> None:
        """Counts the values into their buckets."""
        bounds = self._bounds
        counts = self._counts.setdefault(reward, [0] * len(self._labels))
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sums[reward] = self._sums.get(reward, 0.0) + sum(values) * self._unit

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family in the client library's own form."""
        family = HistogramMetricFamily(self._name, self._text, labels=["reward"])
        for reward, counts in list(self._counts.items()):
            running, buckets = 0, []
            for bound, count in zip(self._labels, counts, strict=True):
                running += count
                buckets.append((bound, float(running)))
            family.add_metric([reward], buckets, self._sums.get(reward, 0.0))
        yield family


VERDICTS = Counter("rewardsvc_verdicts", "Verdicts sent.", ["reward", "status", "reason"], registry=REGISTRY)
QUEUE_SECONDS = Buckets("rewardsvc_queue_seconds", "Time that a rollout waited for a worker.", _SECONDS, 0.001)
RUN_SECONDS = Buckets("rewardsvc_run_seconds", "Time that judging a rollout took.", _SECONDS, 0.001)
GROUP_SIZE = Buckets("rewardsvc_group_size", "Rollouts per group.", _SIZES)
ALL_EQUAL = Counter(
    "rewardsvc_all_equal_groups", "Groups whose scored rewards are all equal.", ["reward"], registry=REGISTRY
)
CACHE = Counter("rewardsvc_cache_lookups", "Cache lookups by outcome.", ["outcome"], registry=REGISTRY)
WORKERS_ENDED = Counter("rewardsvc_workers_ended", "Workers that ended, and why.", ["kind", "why"], registry=REGISTRY)
PARENT_DEATHS = Counter("rewardsvc_parent_deaths", "Times the parent of the workers died.", registry=REGISTRY)
IN_FLIGHT = Gauge("rewardsvc_in_flight_groups", "Groups being scored.", registry=REGISTRY)
REFUSED = Counter("rewardsvc_refused_requests", "Requests refused, by problem type.", ["problem"], registry=REGISTRY)
ABANDONED = Counter("rewardsvc_abandoned_groups", "Groups whose caller went away.", registry=REGISTRY)

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_encode = msgspec.json.Encoder(enc_hook=str).encode
_threshold = _LEVELS["warning"]


@lru_cache(maxsize=4096)
def _verdict_counter(reward: str, status: str, reason: str) -> Counter:
    return VERDICTS.labels(reward, status, reason)


@lru_cache(maxsize=64)
def _cache_counter(outcome: str) -> Counter:
    return CACHE.labels(outcome)


@lru_cache(maxsize=1024)
def _all_equal_counter(reward: str) -> Counter:
    return ALL_EQUAL.labels(reward)


class Judged(Protocol):
    """What this module needs to know of a verdict."""

    status: Any
    reason: str
    cached: bool
    timing: Any


def configure_logging(level: str = "info") -> None:
    """Events of at least this level become one JSON object per line on standard error (before: warnings only)."""
    global _threshold
    _threshold = _LEVELS[level]


def _log(level: str, event: str, **fields: Any) -> None:
    if _LEVELS[level] >= _threshold:
        line = {"time": datetime.now(UTC).isoformat(), "level": level, "event": event, **fields}
        with suppress(OSError):  # whoever read the log may be gone; the groups must still be answered
            sys.stderr.write(_encode(line).decode() + "\n")


def group_scored(
    reward: str, request_id: str, verdicts: Sequence[Judged], all_equal: bool, milliseconds: float
) -> None:
    """A reply is on its way: all counters of the group and its one log line."""
    outcomes: dict[tuple[str, str], int] = {}
    queue_ms: list[float] = []
    run_ms: list[float] = []
    for verdict in verdicts:
        outcome = (verdict.status, verdict.reason)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if not verdict.cached:
            timing = verdict.timing
            queue_ms.append(timing.queue_ms)
            run_ms.append(timing.run_ms)
    statuses: dict[str, int] = {}
    for (status, reason), count in outcomes.items():
        statuses[status] = statuses.get(status, 0) + count
        _verdict_counter(reward, status, reason).inc(count)
    QUEUE_SECONDS.observe(reward, queue_ms)
    RUN_SECONDS.observe(reward, run_ms)
    GROUP_SIZE.observe(reward, (len(verdicts),))
    if all_equal:
        _all_equal_counter(reward).inc()
    _log(
        "info",
        "group_scored",
        reward=reward,
        request_id=request_id,
        size=len(verdicts),
        statuses=statuses,
        ms=milliseconds,
    )


def cache_hit(count: int) -> None:
    """So many rollouts whose verdicts were known."""
    _cache_counter("hit").inc(count)


def twin_joined(count: int) -> None:
    """So many rollouts whose twins were under way."""
    _cache_counter("joined").inc(count)


def cache_missed(count: int) -> None:
    """So many rollouts that were new."""
    if count:
        _cache_counter("miss").inc(count)


def group_started() -> None:
    """A group was admitted."""
    IN_FLIGHT.inc()


def group_ended() -> None:
    """A group was answered or given up."""
    IN_FLIGHT.dec()


def group_abandoned(reward: str, request_id: str) -> None:
    """The caller hung up before the reply."""
    ABANDONED.inc()
    _log("info", "group_abandoned", reward=reward, request_id=request_id)


def request_refused(problem: str, request_id: str) -> None:
    """A problem document is on its way."""
    REFUSED.labels(problem).inc()
    _log("info", "request_refused", problem=problem, request_id=request_id)


def worker_ended(kind: str, why: str) -> None:
    """`why` is exit, signal, parent_killed, item_limit, memory_limit, abandoned, recycled, garbage or closing."""
    WORKERS_ENDED.labels(kind, why).inc()
    if why not in ("recycled", "closing"):
        _log("warning", "worker_ended", kind=kind, why=why)


def parent_died(why: str) -> None:
    """The parent of the workers is being started again."""
    PARENT_DEATHS.inc()
    _log("error", "parent_died", why=why)


def reward_unavailable(reward: str, because: str) -> None:
    """A reward failed its import or its self-test."""
    _log("error", "reward_unavailable", reward=reward, because=because)


def started(address: str, rewards: int, seconds: float) -> None:
    """The service is ready."""
    _log("info", "ready", address=address, rewards=rewards, seconds=seconds)


def not_ready(reasons: Sequence[str]) -> None:
    """Readiness has been red for a while, for the same reasons; they are the operator's words and our own."""
    _log("warning", "not_ready", reasons=reasons)


def settings_unread(names: Sequence[str]) -> None:
    """There are variables with our prefix that nothing reads."""
    _log("warning", "settings_unread", names=names)


def draining(groups: int) -> None:
    """The service stops taking requests and finishes what it has."""
    _log("info", "draining", groups=groups)


def failed(request_id: str, error: BaseException) -> None:
    """A fault of ours; the message is left out because it may quote a request."""
    _log(
        "error",
        "internal_error",
        request_id=request_id,
        error=type(error).__name__,
        at=traceback.format_tb(error.__traceback__),
    )


def exposition() -> bytes:
    """Every metric in Prometheus's text format. Slow with many series: call it off the event loop."""
    return generate_latest(REGISTRY)


_tracer: Any = None
_NOTHING: AbstractContextManager[None] = nullcontext()


def span(name: str, traceparent: str | None = None, **attributes: Any) -> AbstractContextManager[Any]:
    """An OpenTelemetry span, child of the caller's W3C `traceparent`; nothing when tracing is not configured."""
    if _tracer is None:
        return _NOTHING
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent}) if traceparent else None
    started: AbstractContextManager[Any] = _tracer.start_as_current_span(name, context=context, attributes=attributes)
    return started


def configure_tracing(endpoint: str | None) -> None:
    """Sends spans to an OTLP/HTTP collector. Raises `SettingsFault` naming the extra when it is not installed."""
    global _tracer
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsFault("REWARDSVC_OTLP_ENDPOINT needs `pip install rewardsvc[otel]`") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "rewardsvc"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    _tracer = provider.get_tracer("rewardsvc")
