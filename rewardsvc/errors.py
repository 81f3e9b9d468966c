"""Every error that rewardsvc raises, as one tree. Nothing else lives here, and this module imports nothing of ours.

RewardsvcError
├── NotScored                 a rollout gets no number: becomes a verdict, never an HTTP error
│   ├── BadReference · BadItem · Timeout · ResourceLimit · Crashed
│   └── PluginError · SandboxError · JudgeError · Unavailable
├── Problem                   a request is refused: becomes application/problem+json (RFC 9457)
│   ├── MalformedRequest 400 · NotJson 400 · Unauthorized 401 · Forbidden 403 · NotFound 404 · MethodNotAllowed 405
│   ├── RewardUnavailable 409 · TooLarge 413 · UnsupportedMediaType 415 · WrongShape 422
│   └── RequestTimeout 408 · OverQuota 429 · Internal 500 · Overloaded 503 · Draining 503
├── RewardFault               a reward class or file cannot be offered; the message says what to change
├── SettingsFault             the service refuses to start with these settings
└── ClientError               seen by callers of `rewardsvc.client`
    ├── ServiceRefused        the service answered with a problem (its fields are attributes)
    ├── ServiceUnreachable    no answer at all, after the retries that the deadline allowed
    └── DeadlineExceeded      the total deadline of the call has passed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class RewardsvcError(Exception):
    """Base of everything raised on purpose by rewardsvc."""


class NotScored(RewardsvcError):
    """A rollout cannot be given a number. A reward raises a leaf of this; the worker makes the verdict.

    `reason` is a stable slug that the reward documents; `feedback` is text that may be shown to a policy.
    """

    status: ClassVar[str] = "plugin_error"

    def __init__(self, reason: str, feedback: str | None = None) -> None:
        super().__init__(reason if feedback is None else f"{reason}: {feedback}")
        self.reason = reason
        self.feedback = feedback


class BadReference(NotScored):
    """What the caller gave to judge by cannot be used."""

    status = "bad_reference"


class BadItem(NotScored):
    """This rollout cannot be judged: invalid text or over a limit."""

    status = "bad_item"


class Timeout(NotScored):
    """The verifier, not the candidate, ran out of time."""

    status = "timeout"


class ResourceLimit(NotScored):
    """The verifier ran out of memory."""

    status = "resource_limit"


class Crashed(NotScored):
    """The process that judged this rollout died."""

    status = "crashed"


class PluginError(NotScored):
    """The reward's own code failed or returned something that is no verdict."""

    status = "plugin_error"


class SandboxError(NotScored):
    """The sandbox failed; the candidate program was not judged."""

    status = "sandbox_error"


class JudgeError(NotScored):
    """The judge model gave no usable verdict."""

    status = "judge_error"


class Unavailable(NotScored):
    """What this reward needs is not there at the moment."""

    status = "unavailable"


class Problem(RewardsvcError):
    """A request is refused. `slug`, `title` and `status` are fixed per leaf.

    A leaf's docstring is what docs/errors.md and the page `/problems/<slug>` say: what it means, then what to do.
    """

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "The service failed"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        errors: Sequence[tuple[str, str]] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        """`errors` are (JSON pointer into the request, what is wrong there); `retry_after_ms` is in milliseconds."""
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_ms = retry_after_ms


class MalformedRequest(Problem):
    """What arrived breaks the rules of HTTP itself.

    Use an HTTP client that exists, or see what a proxy on the way makes of the request.
    """

    slug, title, status = "malformed-request", "This is not a valid HTTP request", 400


class NotJson(Problem):
    """The body is not one strict JSON document, or cannot be inflated to one.

    Send one JSON document in UTF-8: no NaN, no name twice in an object, no half of a surrogate pair, nothing after it.
    """

    slug, title, status = "not-json", "The body is not valid JSON", 400


class Unauthorized(Problem):
    """A key is needed and none was sent.

    Send the header `Authorization: Bearer KEY`; whoever runs the service has the keys.
    """

    slug, title, status = "key-missing", "An API key is needed", 401


class Forbidden(Problem):
    """The key that was sent is not one of ours.

    Check for a key that was replaced, for another service, or for quotes that became part of it.
    """

    slug, title, status = "key-wrong", "This API key is not accepted", 403


class NotFound(Problem):
    """No such reward or no such page.

    `GET /v1/rewards` lists the rewards, `/openapi.json` every page.
    """

    slug, title, status = "not-found", "There is nothing here", 404


class MethodNotAllowed(Problem):
    """The page exists but not for this method.

    The header `Allow` of the reply names the methods that there are.
    """

    slug, title, status = "method-not-allowed", "This method is not offered here", 405


class RequestTimeout(Problem):
    """The caller sent the head or the body too slowly.

    Send the same request again; if that keeps happening, send smaller groups, or compress the body with gzip or zstd.
    """

    slug, title, status, retryable = "request-too-slow", "The request did not arrive in time", 408, True


class RewardUnavailable(Problem):
    """The reward is installed but cannot be used on this machine.

    `detail` says why; `rewardsvc doctor` on that machine says what it lacks and how to get it.
    """

    slug, title, status = "reward-unavailable", "This reward is installed but unavailable", 409


class TooLarge(Problem):
    """The body, once inflated, or a part of it is over a limit.

    Send smaller groups, or have the limit raised: docs/operations.md lists them.
    """

    slug, title, status = "too-large", "The request is too large", 413


class UnsupportedMediaType(Problem):
    """The body is not announced as JSON, or its encoding is not one we read.

    Send `Content-Type: application/json`, and `Content-Encoding` gzip, zstd or none.
    """

    slug, title, status = "unsupported-media-type", "Send JSON, plain or compressed with gzip or zstd", 415


class WrongShape(Problem):
    """The request is JSON but not what this route takes.

    `errors` points at each mistake; `/docs` has a form with examples for every reward.
    """

    slug, title, status = "wrong-shape", "The request does not have the right shape", 422


class OverQuota(Problem):
    """The key has sent as many groups as it may for now.

    Wait for as long as `Retry-After` says; the Python client does. `REWARDSVC_QUOTA_PER_MINUTE` sets the quota.
    """

    slug, title, status, retryable = "over-quota", "This key is over its quota", 429, True


class Internal(Problem):
    """A fault of ours that nobody foresaw.

    The log of the service has the details under the request id in `instance`; please report them.
    """


class Overloaded(Problem):
    """More work is waiting than can be done before the deadline.

    Wait for as long as `Retry-After` says; the Python client does. If it lasts, add workers or machines.
    """

    slug, title, status, retryable = "overloaded", "The service is overloaded", 503, True


class Draining(Problem):
    """The service is shutting down or not up yet.

    Send the same request again, to another instance if there is one; `/readyz` says what it waits for.
    """

    slug, title, status, retryable = "not-ready", "The service is starting or stopping", 503, True


PROBLEMS: tuple[type[Problem], ...] = (
    MalformedRequest,
    NotJson,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    RewardUnavailable,
    TooLarge,
    UnsupportedMediaType,
    WrongShape,
    OverQuota,
    Internal,
    Overloaded,
    Draining,
)


class RewardFault(RewardsvcError):
    """A reward cannot be offered; the message names it and says what to change."""


class SettingsFault(RewardsvcError):
    """The service does not start with these settings; the message says which and why."""


class ClientError(RewardsvcError):
    """Base of what a caller of `rewardsvc.client` may want to catch."""


class ServiceRefused(ClientError):
    """The service answered with a problem document.

    `status` is the HTTP status, `slug` the problem's type, `errors` the (JSON pointer, message) pairs,
    `retry_after` seconds or None.
    """

    def __init__(
        self,
        status: int,
        slug: str,
        detail: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        errors: Sequence[tuple[str, str]] = (),
    ) -> None:
        places = "".join(f"\n  {pointer or '/'}: {message}" for pointer, message in errors)
        super().__init__(f"HTTP {status} {slug}: {detail}{places}")
        self.status = status
        self.slug = slug
        self.detail = detail
        self.retryable = retryable
        self.retry_after = retry_after
        self.errors = tuple(errors)


class ServiceUnreachable(ClientError):
    """No answer came from the service."""


class DeadlineExceeded(ClientError):
    """The call's total deadline passed before an answer came."""
