"""The plugin contract: what a reward is. A reward is one class in one file.

Subclass `PerRollout` to judge each rollout by itself (it can then be sharded, cached and joined with a twin), or
`PerGroup` to see the whole group (votes, pairs, tournaments). Register the class under the entry-point group
`rewardsvc.rewards`, or name its file in `REWARDSVC_REWARD_FILES`.

    class Exact(PerRollout):
        \"\"\"1.0 when the final answer equals the reference.\"\"\"

        name, version = "exact", "1"
        deterministic = True
        cases = [Case.full("42", reference="42"), Case.zero("41", reference="42")]

        def score(self, rollout, task, params):
            same = rollout.text.strip() == task.reference
            return Verdict.scored(float(same), "equal" if same else "not_equal", answer=rollout.text.strip())

How rewards are found is in `registry`; where they run, in `executors`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rewardsvc.clock import now_ns
from rewardsvc.contract import Message, Model, Rollout, Status, Task, Verdict
from rewardsvc.errors import BadItem, BadReference, NotScored

__all__ = [
    "BadItem",
    "BadReference",
    "Case",
    "Cpu",
    "InvalidTask",
    "Io",
    "Message",
    "Model",
    "NotScored",
    "PerGroup",
    "PerRollout",
    "Reward",
    "Rollout",
    "Task",
    "Verdict",
    "seconds_left",
]

deadline_ns: ContextVar[int | None] = ContextVar("deadline_ns", default=None)
"""The deadline of the group that is being judged, on the monotonic clock; set by whoever runs a reward."""


def seconds_left() -> float:
    """Seconds until the reply to the group that is being judged must be out; infinity where there is no deadline.

    For rewards that hand work on, to a program or to a server, which should stop by then too. The number of a verdict
    must not depend on it.
    """
    deadline = deadline_ns.get()
    return math.inf if deadline is None else (deadline - now_ns()) / 1e9


class InvalidTask(Exception):
    """Raised by `Reward.check_task`: a mistake of the caller that spoils the whole group. Becomes HTTP 422.

    `pointer` is a JSON pointer into the request, for example `/task/reference/tests`.
    """

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message


@dataclass(frozen=True)
class Cpu:
    """Runs in a warm process that is killed when one item takes more than `item_timeout` seconds or `memory_mb` MiB."""

    item_timeout: float = 5.0
    memory_mb: int = 1024
    kind: ClassVar[Literal["cpu"]] = "cpu"


@dataclass(frozen=True)
class Io:
    """Runs as a coroutine outside the web process: for rewards that wait for somebody else's server.

    At most `concurrency` items are under way at once; an item ends after `item_timeout` seconds.
    """

    item_timeout: float = 30.0
    memory_mb: int = 1024
    concurrency: int = 64
    kind: ClassVar[Literal["io"]] = "io"


CaseKind = Literal["full", "zero", "partial", "malformed", "attack", "not_scored", "group"]


@dataclass(frozen=True)
class Case:
    """One example of a reward: its test, its start-up self-test, its place in the docs.

    `rewards` has one entry per completion; None means that the rollout must not be scored.
    """

    kind: CaseKind
    completions: tuple[str, ...]
    rewards: tuple[float | None, ...]
    reference: Any = None
    params: Mapping[str, Any] | None = None
    prompt: str = ""
    reason: str | None = None
    status: Status | None = None
    why: str = ""

    @classmethod
    def full(cls, completion: str, **about: Any) -> Case:
        """Must score 1.0. `about`: reference, params, prompt, reason, why."""
        return cls("full", (completion,), (1.0,), **about)

    @classmethod
    def zero(cls, completion: str, **about: Any) -> Case:
        """A wrong answer in good form: must score 0.0."""
        return cls("zero", (completion,), (0.0,), **about)

    @classmethod
    def partial(cls, completion: str, reward: float, **about: Any) -> Case:
        """Must score exactly `reward`."""
        return cls("partial", (completion,), (reward,), **about)

    @classmethod
    def malformed(cls, completion: str, **about: Any) -> Case:
        """No usable answer in it: must score 0.0."""
        return cls("malformed", (completion,), (0.0,), **about)

    @classmethod
    def attack(cls, completion: str, **about: Any) -> Case:
        """An attempt to be rewarded without being right: must score 0.0."""
        return cls("attack", (completion,), (0.0,), **about)

    @classmethod
    def not_scored(cls, completion: str, status: Status, **about: Any) -> Case:
        """Must get no number, with this status."""
        return cls("not_scored", (completion,), (None,), status=status, **about)

    @classmethod
    def group(cls, completions: Sequence[str], rewards: Sequence[float | None], **about: Any) -> Case:
        """A whole group and its rewards in order: for rewards that compare rollouts."""
        return cls("group", tuple(completions), tuple(rewards), **about)


class Reward:
    """What every reward declares. Use `PerRollout` or `PerGroup`, not this.

    The first line of the class docstring is the catalogue text.
    """

    name: ClassVar[str]
    """Part of the URL: lower-case letters, digits and underscores."""
    version: ClassVar[str]
    """Part of the cache key: change it whenever a verdict may change."""
    resources: ClassVar[Cpu | Io] = Cpu()
    """Where it runs and what one item may take."""
    deterministic: ClassVar[bool] = False
    """Equal input gives an equal verdict for ever: it may be cached and joined with a twin in flight."""
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """Lowest and highest reward; a number outside is a plugin error."""
    Reference: ClassVar[Any] = Any
    """The type a reference must have, for example `str | int`; any other is `bad_reference`."""
    parts: ClassVar[tuple[str, ...]] = ()
    """Names of the partial rewards; every scored verdict carries exactly these."""
    reasons: ClassVar[Mapping[str, str]] = {}
    """Every reason slug that a scored verdict may carry, with one line of explanation."""
    cases: ClassVar[Sequence[Case]] = ()

    class Params(Model):
        """No parameters."""

    @classmethod
    def warm(cls) -> None:
        """Runs once in the parent before workers are forked: load tables, fill caches. Must not start threads."""

    def check_task(self, task: Task, params: Any) -> None:
        """Raise `InvalidTask` when the whole request makes no sense (a schema that is no schema). Default: nothing."""


class PerRollout(Reward):
    """Judges one rollout and knows nothing of the others."""

    def score(self, rollout: Rollout, task: Task, params: Any) -> Verdict | Awaitable[Verdict]:
        """The verdict on `rollout.text` given `task.reference`. `async def` when `resources` is `Io`.

        `rollout.id` is the caller's label and must not change the verdict.
        Raises a leaf of `errors.NotScored` when there can be no number.
        """
        raise NotImplementedError


class PerGroup(Reward):
    """Judges the rollouts of a group together."""

    def score_group(
        self, rollouts: Sequence[Rollout], task: Task, params: Any
    ) -> Sequence[Verdict] | Awaitable[Sequence[Verdict]]:
        """One verdict per rollout, in their order. `async def` when `resources` is `Io`."""
        raise NotImplementedError
