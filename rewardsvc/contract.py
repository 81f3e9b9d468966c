"""The wire models: what a trainer sends, what it gets back, and what the catalogue says. Data only, no behaviour.

One schema language serves the HTTP edge, the frames between processes and the JSON Schemas in the catalogue: msgspec
structs. `Model` is the base of everything a caller fills in, so an unknown field is an error everywhere.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, get_args

import msgspec
import msgspec.inspect
from msgspec import Meta, Struct, field

DEFAULT_DEADLINE_MS = 30_000
MAX_DEADLINE_MS = 3_600_000
MAX_ROLLOUTS = 4_096
MAX_TEXT_BYTES = 1_048_576

Status = Literal[
    "scored",
    "bad_reference",
    "bad_item",
    "timeout",
    "resource_limit",
    "crashed",
    "plugin_error",
    "sandbox_error",
    "judge_error",
    "unavailable",
]
STATUSES: tuple[str, ...] = get_args(Status)


class Model(Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that a caller fills in: typed, and closed to unknown fields.

    Constrain and describe a field with `Annotated[int, Meta(ge=1, description="…")]`.
    """


class Message(Model, kw_only=True):
    """One chat message."""

    role: str
    content: str


Text = str | list[Message]


def text_of(text: Text) -> str | None:
    """The text to judge: the string itself, or the last assistant turn; None when a chat has no assistant turn."""
    if isinstance(text, str):
        return text
    return next((message.content for message in reversed(text) if message.role == "assistant"), None)


class Task(Model, kw_only=True):
    """What all rollouts of a group share."""

    prompt: Annotated[Text, Meta(description="The prompt as text or chat messages.")] = ""
    reference: Annotated[Any, Meta(description="What the reward judges by; each reward documents its own.")] = None
    metadata: Annotated[dict[str, Any], Meta(description="Anything the reward documents.")] = {}


class Rollout(Model, kw_only=True):
    """One sampled completion."""

    id: (
        Annotated[str, Meta(max_length=256, description="Unique in the group; its index when it is left out.")] | None
    ) = None
    completion: Annotated[Text, Meta(description="Text, or chat messages whose last assistant turn is judged.")]
    reference: Annotated[Any, Meta(description="Overrides the task's reference for this rollout.")] = None
    metadata: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The text to judge. The service answers for rollouts that have none before a reward sees them."""
        return text_of(self.completion) or ""


class ScoreRequest(Model, kw_only=True):
    """One rollout group and what is needed to judge it."""

    task: Task = field(default_factory=Task)
    rollouts: Annotated[list[Rollout], Meta(max_length=MAX_ROLLOUTS)]
    params: Annotated[dict[str, Any], Meta(description="The reward's own parameters.")] = {}
    deadline_ms: Annotated[
        int, Meta(ge=1, le=MAX_DEADLINE_MS, description="The reply is sent before so many milliseconds.")
    ] = DEFAULT_DEADLINE_MS


class Timing(Struct):
    """Where the time went, in milliseconds: waiting for a worker, and being judged."""

    queue_ms: float = 0.0
    run_ms: float = 0.0


class Verdict(Struct, kw_only=True):
    """What one rollout deserves, and why.

    `reward` is a finite float when and only when `status` is `scored`. Make one with `Verdict.scored` or raise a leaf
    of `errors.NotScored`; `id`, `cached` and `timing` are filled in by the service.
    """

    id: str = ""
    reward: float | None = None
    status: Status = "scored"
    reason: str
    answer: str | None = None
    parts: dict[str, float | None] = {}
    feedback: str | None = None
    evidence: dict[str, Any] = {}
    cached: bool = False
    timing: Timing = field(default_factory=Timing)

    @classmethod
    def scored(
        cls,
        reward: float,
        reason: str,
        *,
        answer: str | None = None,
        parts: dict[str, float] | None = None,
        feedback: str | None = None,
        evidence: dict[str, Any] | None = None,
    ) -> Verdict:
        """A number with its reason (a stable slug). `parts` are named partial rewards, the same names every time."""
        return cls(
            reward=float(reward),
            reason=reason,
            answer=answer,
            parts=dict(parts or {}),
            feedback=feedback,
            evidence=evidence or {},
        )

    @classmethod
    def not_scored(
        cls, status: Status, reason: str, *, feedback: str | None = None, evidence: dict[str, Any] | None = None
    ) -> Verdict:
        """No number: `status` is anything but `scored`."""
        return cls(status=status, reason=reason, feedback=feedback, evidence=evidence or {})


class GroupSummary(Struct):
    """The scored verdicts of one reply taken together. `std` is the sample standard deviation."""

    size: int
    scored: int
    mean: float | None
    std: float | None
    all_equal: bool


class ScoreReply(Struct):
    """The reply to one group: verdicts in the order of the rollouts."""

    request_id: str
    reward: str
    version: str
    verdicts: list[Verdict]
    group: GroupSummary


class StreamEnd(Struct):
    """The last line of a streamed reply."""

    request_id: str
    reward: str
    version: str
    group: GroupSummary


def summarise(verdicts: Sequence[Verdict]) -> GroupSummary:
    """Mean, spread and all-equal flag of the scored verdicts (two-pass sample variance)."""
    rewards = [verdict.reward for verdict in verdicts if verdict.reward is not None]
    count = len(rewards)
    if not count:
        return GroupSummary(len(verdicts), 0, None, None, False)
    mean = math.fsum(rewards) / count
    if count == 1:
        return GroupSummary(len(verdicts), 1, mean, None, False)
    std = math.sqrt(math.fsum([(reward - mean) ** 2 for reward in rewards]) / (count - 1))
    return GroupSummary(len(verdicts), count, mean, std, min(rewards) == max(rewards))


class CaseInfo(Struct):
    """One case of a reward as the catalogue shows it: an example to read, to send and to test by."""

    kind: str
    rollouts: list[str]
    rewards: list[float | None]
    reference: Any = None
    prompt: str = ""
    params: dict[str, Any] = {}
    reason: str | None = None
    status: str | None = None
    why: str = ""


class ResourceInfo(Struct):
    """Where a reward runs and what one item may take."""

    kind: Literal["cpu", "io"]
    item_timeout: float
    memory_mb: int
    concurrency: int = 1


class RewardInfo(Struct):
    """A catalogue entry: everything about a reward that can be said without running it."""

    name: str
    version: str
    summary: str
    description: str
    range: tuple[float, float]
    per_group: bool
    deterministic: bool
    resources: ResourceInfo
    wheel: str
    params: dict[str, Any]
    reference: dict[str, Any]
    parts: list[str]
    reasons: dict[str, str]
    cases: list[CaseInfo]
    available: bool = True
    unavailable_because: str | None = None


def pointer(path: str) -> str:
    """A msgspec path (`$.rollouts[0].id`) as a JSON pointer (`/rollouts/0/id`, RFC 6901)."""
    return path.removeprefix("$").replace("[", "/").replace("]", "").replace(".", "/").replace("/...", "")


def first_error(error: msgspec.ValidationError, under: str = "", model: type[Struct] | None = None) -> tuple[str, str]:
    """A validation error as (JSON pointer below `under`, message).

    An unknown field is pointed at itself; where the `model` that was asked for is given, the message names the field
    that was meant, or those there are.
    """
    message, _, path = str(error).removesuffix("`").rpartition(" - at `$")
    if not message:
        message, path = str(error), ""
    place = under + pointer(path.replace("[...]", ""))
    _, found, name = message.removesuffix("`").partition("unknown field `")
    if not found:
        return place, message + _allowed(message, model, path)
    if "[...]" not in path:
        place += "/" + name.replace("~", "~0").replace("/", "~1")
    known = _field_names(_type_info(model), path) if model else []
    near = difflib.get_close_matches(name[:64], known, 1)
    hint = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(sorted(known))}" if known else ""
    return place, f"Unknown field `{name[:64]}`{hint}"


def _allowed(message: str, model: type[Struct] | None, path: str) -> str:
    """What may stand where a word is none of those there are, else nothing."""
    if model is None or not message.startswith("Invalid enum value"):
        return ""
    kinds = _choices(_leads_to(_type_info(model), path))
    words = [word for kind in kinds if isinstance(kind, msgspec.inspect.LiteralType) for word in kind.values]
    return f"; there are {', '.join(f'`{word}`' for word in words)}" if words else ""


_type_info = functools.lru_cache(maxsize=256)(msgspec.inspect.type_info)


def _field_names(kind: msgspec.inspect.Type, path: str) -> list[str]:
    """The fields of the struct to which a msgspec path (`.rollouts[0]`) leads; none where it leads elsewhere."""
    kinds = _choices(_leads_to(kind, path))
    structs = [each for each in kinds if isinstance(each, msgspec.inspect.StructType)]
    return [field.encode_name for struct in structs for field in struct.fields]


def _leads_to(kind: msgspec.inspect.Type, path: str) -> msgspec.inspect.Type:
    """The type at the end of a msgspec path (`.rollouts[0]`)."""
    for step in re.findall(r"\.[^.\[]+|\[[^\]]*\]", path):
        kind = next((inner for each in _choices(kind) if (inner := _inside(each, step)) is not None), kind)
    return kind


def _choices(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    kind = kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def _inside(kind: msgspec.inspect.Type, step: str) -> msgspec.inspect.Type | None:
    """What one step of a path leads to, None where a type has no such step."""
    if isinstance(kind, msgspec.inspect.StructType):
        return next((field.type for field in kind.fields if f".{field.encode_name}" == step), None)
    if isinstance(kind, msgspec.inspect.CollectionType):
        return kind.item_type
    return kind.value_type if isinstance(kind, msgspec.inspect.DictType) else None


def unique_ids(rollouts: Iterable[Rollout]) -> list[str]:
    """The ids of a group, indices standing in for absent ones. Raises ValueError naming the first repeated id."""
    ids = [str(index) if rollout.id is None else rollout.id for index, rollout in enumerate(rollouts)]
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        index = next(i for i, name in enumerate(ids) if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"/rollouts/{index}/id")
    return ids
