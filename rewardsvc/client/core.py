"""What a call to the service is, without any I/O: the request to send, the answer to read, and whether to try again.

`sync` and `aio` move the bytes and keep the time; all that they must agree on is here, as functions of plain values:

    call = service.score("math", rollouts, reference="42")
    outcome = (what posting call.body(seconds left) came to), again after call.wait(outcome, seconds left) if not None
    reply = call.read(outcome)

Scoring is pure, so a call may be sent again safely. It is sent again after HTTP 429 and 503 and when no answer came at
all, always under the same `X-Request-ID` and never beyond the call's deadline. An address where nobody listens is given
up much sooner: most likely it is the wrong one. There is no hedging.
"""

from __future__ import annotations

import errno
import json
import math
import random
import ssl
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar, cast
from urllib.parse import quote, urlsplit

import msgspec

from rewardsvc.contract import MAX_DEADLINE_MS, Message, RewardInfo, Rollout, ScoreReply, ScoreRequest, Task, Text
from rewardsvc.errors import DeadlineExceeded, ServiceRefused, ServiceUnreachable

URL = "http://127.0.0.1:8000"
TIMEOUT_S = 60.0
CONNECT_S = 5.0
"""One address may take so long to accept a connection: a dead replica must not eat the whole deadline."""
ABSENT_S = 2.0
"""So long may nobody be at the address, unless the caller has more patience: a service that is being started again."""
KEEP_IDLE_S = 4.0
"""A connection that was idle for longer is not used again: uvicorn closes its side after 5 seconds."""
RETRIED_STATUSES = frozenset({429, 503})
FIRST_WAIT_S, LONGEST_WAIT_S, SHORTEST_TRY_S = 0.1, 5.0, 0.02
_NOBODY_THERE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})

Chat = Sequence[Message | Mapping[str, Any]]
Completions = Sequence[str | Chat | Rollout]
T = TypeVar("T")


class Answer(NamedTuple):
    """The service, or something in front of it, answered. `retry_after` is the header as it came."""

    status: int
    body: bytes
    retry_after: str | None


Outcome = Answer | Exception  # what one try came to; an exception when no answer came


class _ProblemDocument(msgspec.Struct):
    """RFC 9457 with the members that our service adds; everything is optional, because a proxy may have written it."""

    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    retryable: bool = False
    retry_after_ms: float | None = None
    errors: list[dict[str, str]] = []


class _Catalogue(msgspec.Struct):
    rewards: list[RewardInfo]


_reply = msgspec.json.Decoder(ScoreReply)
_entry = msgspec.json.Decoder(RewardInfo)
_catalogue = msgspec.json.Decoder(_Catalogue)
_problem = msgspec.json.Decoder(_ProblemDocument)


class Service:
    """Where the service is, who asks, and how long a call may take. Its methods are the clients' methods, sans I/O."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float, absent: float = ABSENT_S) -> None:
        """`timeout` and `absent` in seconds. Raises ValueError for a URL, a key or a time that cannot work."""
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname or "@" in url.netloc or url.query or url.fragment:
            raise ValueError("A service's address has the form http(s)://host[:port][/prefix]; keys go into `api_key`.")
        if not 0 < timeout < math.inf:
            raise ValueError(f"A call must have a timeout of more than 0 seconds, not {timeout!r}.")
        if not 0 <= absent < math.inf:
            raise ValueError(f"`absent` is a number of seconds, not {absent!r}.")
        self.timeout, self.absent = timeout, absent
        self.tls = url.scheme == "https"
        self.host, self.port = url.hostname, url.port or (443 if self.tls else 80)
        self.origin, self._prefix = f"{url.scheme}://{url.netloc}", quote(url.path.rstrip("/"), safe="/%")
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {_header_value(api_key, 'API key')}"

    def score(
        self,
        reward: str,
        rollouts: Completions,
        *,
        reference: Any = None,
        references: Sequence[Any] | None = None,
        prompt: str | Chat = "",
        task: Task | None = None,
        params: Mapping[str, Any] | None = None,
        deadline_ms: int | None = None,
        request_id: str | None = None,
    ) -> Call[ScoreReply]:
        """The verdicts on one group, in the order of `rollouts`: strings, lists of chat messages or `Rollout`s.

        `references` has one for each rollout, in their order, where they differ; None in it stands for `reference`.
        `task` stands in for `prompt` and `reference`. The service answers within `deadline_ms`, finished or not; left
        out, or later than the client's own timeout, it is what remains of that, less a margin. `request_id` is sent
        with every try. Raises TypeError for what JSON cannot carry, ValueError for more or fewer `references` than
        rollouts; shapes are checked by the service alone.
        """
        if isinstance(rollouts, str):
            raise TypeError("`rollouts` is a list of completions; put a single one in a list.")
        if task is not None and (prompt != "" or reference is not None):
            raise TypeError("Give either `task`, or `prompt` and `reference`.")
        group = ScoreRequest(
            task=task or Task(prompt=cast(Text, prompt), reference=reference),
            rollouts=_rollouts(rollouts, references),
            params=dict(params or {}),
        )

        def body(left: float) -> bytes:
            return _encode(msgspec.structs.replace(group, deadline_ms=told_deadline_ms(left, deadline_ms)))

        headers = self._headers_of(request_id) | {"Content-Type": "application/json"}
        return Call(self, "POST", self._target(reward), headers, _reply.decode, body)

    def rewards(self) -> Call[list[RewardInfo]]:
        """Every reward of the service, the unavailable ones with the reason."""
        return Call(self, "GET", self._target(), self._headers_of(), lambda body: _catalogue.decode(body).rewards)

    def reward(self, name: str) -> Call[RewardInfo]:
        """One reward with its schemas, reasons and cases."""
        return Call(self, "GET", self._target(name), self._headers_of(), _entry.decode)

    def ready(self) -> Call[bool]:
        """True when the service takes work; False when it says no or does not answer."""
        return Readiness(self, "GET", f"{self._prefix}/readyz", self._headers_of(), lambda _: True)

    def _target(self, reward: str | None = None) -> str:
        return f"{self._prefix}/v1/rewards" + ("" if reward is None else f"/{quote(reward, safe='')}")

    def _headers_of(self, request_id: str | None = None) -> dict[str, str]:
        name = uuid.uuid4().hex if request_id is None else _header_value(request_id, "request id")
        return self._headers | {"X-Request-ID": name}


@dataclass
class Call(Generic[T]):
    """One question to the service through all its tries. `left` is what the deadline leaves at that moment, seconds.

    `absent_since` is what it left when somebody was last known to be there, None when the last try met somebody.
    """

    service: Service
    method: str
    target: str
    headers: dict[str, str]
    decode: Callable[[bytes], T]
    body: Callable[[float], bytes | None] = lambda left: None
    tries: int = 0
    absent_since: float | None = None

    def wait(self, outcome: Outcome, left: float) -> float | None:
        """Seconds to wait after the try that came to `outcome`, or None when that is the last word."""
        self.tries += 1
        wait = wait_before_retry(self.tries, outcome, left, self.headers["X-Request-ID"])
        if wait is None or not nobody_there(outcome):
            self.absent_since = None
            return wait
        if self.absent_since is None:
            self.absent_since = left
        return wait if self.absent_since - left + wait <= self.service.absent else None

    def read(self, outcome: Outcome) -> T:
        """What the service said. Raises ServiceRefused, ServiceUnreachable or DeadlineExceeded."""
        if not isinstance(outcome, Answer):
            if nobody_there(outcome):
                raise ServiceUnreachable(self._about_nobody(outcome)) from outcome
            kind = DeadlineExceeded if isinstance(outcome, TimeoutError) else ServiceUnreachable
            asked = f"{self.method} {self.target} (request {self.headers['X-Request-ID']})"
            raise kind(f"No answer to {asked}: {outcome or type(outcome).__name__}") from outcome
        if outcome.status != 200:
            raise refusal(outcome)
        try:
            return self.decode(outcome.body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            detail = f"{self.method} {self.target} was answered with something else than expected ({error})."
            raise ServiceRefused(200, "unreadable-reply", detail) from error

    def _about_nobody(self, error: Exception) -> str:
        times = f"{self.tries} times" if self.tries > 1 else "once"
        return (
            f"No reward service is at {self.service.origin} (tried {times}: {error}). "
            "Start it there (`rewardsvc serve`), or give the client the address at which it is."
        )


class Readiness(Call[bool]):
    """A question whose answer may be no: 503 and silence mean not ready, at once and without an error."""

    def wait(self, outcome: Outcome, left: float) -> float | None:
        """An old keep-alive connection is the only reason to ask again."""
        return None if isinstance(outcome, Answer) or self.tries > 0 else super().wait(outcome, left)

    def read(self, outcome: Outcome) -> bool:
        """Raises ServiceRefused for any answer but 200 and 503."""
        return isinstance(outcome, Answer) and outcome.status != 503 and super().read(outcome)


def nobody_there(outcome: Outcome) -> bool:
    """Whether the try met no server at all: refused, no way to it, or no such name (resolvers' errors are negative)."""
    number = outcome.errno if isinstance(outcome, OSError) else None
    return number is not None and (number < 0 or number in _NOBODY_THERE)


def wait_before_retry(tries: int, outcome: Outcome, left: float, seed: str) -> float | None:
    """Seconds to wait after try number `tries`, or None to give up: no need, no hope, or not enough of `left` seconds.

    After the first failure to get an answer there is no wait: most likely it was an old keep-alive connection. Else the
    wait doubles from `FIRST_WAIT_S` to `LONGEST_WAIT_S`, less up to half of it at random by `seed`, and comes on top of
    what the service asked for: those sent away together return one by one.
    """
    hopeless = isinstance(outcome, ssl.SSLCertVerificationError)
    if hopeless or (isinstance(outcome, Answer) and outcome.status not in RETRIED_STATUSES):
        return None
    jitter = random.Random(f"{seed}/{tries}").random() / 2
    wait = min(FIRST_WAIT_S * 2.0 ** min(tries - 1, 16), LONGEST_WAIT_S) * (1 - jitter)
    if isinstance(outcome, Answer):
        wait += refusal(outcome).retry_after or 0.0
    elif tries == 1:
        wait = 0.0
    return wait if wait + SHORTEST_TRY_S < left else None


def told_deadline_ms(left: float, asked_ms: int | None) -> int:
    """The deadline to tell the service, in milliseconds, when this side gives up in `left` seconds.

    A twentieth, from 20 ms to a second, is kept back for the way to and fro, so that a partial reply arrives in time.
    """
    margin = min(max(left / 20, SHORTEST_TRY_S), 1.0)
    ours = max(1, min(int((left - margin) * 1000), MAX_DEADLINE_MS))
    return ours if asked_ms is None else min(asked_ms, ours)


def refusal(answer: Answer) -> ServiceRefused:
    """The error for an answer that is not 200, whoever wrote it: our service, or a proxy that knows no RFC 9457.

    Retry-After as a date is not read: it would compare two machines' clocks.
    """
    try:
        problem = _problem.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = _ProblemDocument(detail=answer.body[:200].decode("utf-8", "replace"))
    header = (answer.retry_after or "").strip()
    asked = float(header) if header.isascii() and header.isdigit() else None
    return ServiceRefused(
        answer.status,
        problem.type.rpartition("/")[2],
        problem.detail or problem.title,
        retryable=problem.retryable or answer.status in RETRIED_STATUSES,
        retry_after=asked if problem.retry_after_ms is None else max(problem.retry_after_ms / 1000, 0.0),
        errors=[(place.get("pointer", ""), place.get("detail", "")) for place in problem.errors],
    )


def _rollouts(rollouts: Completions, references: Sequence[Any] | None) -> list[Rollout]:
    """In the contract's form, each with its reference."""
    plain = [each if isinstance(each, Rollout) else Rollout(completion=cast(Text, each)) for each in rollouts]
    if references is None:
        return plain
    if isinstance(references, str) or len(references) != len(plain):
        raise ValueError(f"`references` is a list with one for each of the {len(plain)} rollouts.")
    if any(rollout.reference is not None for rollout in plain):
        raise ValueError("Give either `references`, or rollouts with a reference of their own.")
    return [
        msgspec.structs.replace(rollout, reference=reference)
        for rollout, reference in zip(plain, references, strict=True)
    ]


def _encode(request: ScoreRequest) -> bytes:
    """The request as JSON. Half a surrogate pair goes out escaped, and the service says what it thinks of it."""
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(request)).encode()


def _header_value(value: str, what: str) -> str:
    if not value.isascii() or not value.isprintable() or " " in value or not value:
        raise ValueError(f"The {what} travels in a header: it must be printable ASCII without spaces.")
    return value
