"""Whatever a reward returns or raises becomes a well-formed verdict here, and nothing else gets out of a worker."""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from rewardsvc.contract import MAX_TEXT_BYTES, Rollout, Verdict
from rewardsvc.errors import NotScored
from rewardsvc.packing import encode
from rewardsvc.reward import PerGroup, Reward

_SCORED, _UNNAMED = "scored", ""
_SLUG = re.compile(r"[a-z0-9_]{1,64}")
_MAX_ANSWER = 10_000
_MAX_VERDICT = 4 << 20
_decode_verdict = msgspec.msgpack.Decoder(Verdict).decode


def failed(reward: Reward, error: BaseException) -> Verdict:
    """The verdict that an exception stands for. The message is left out: it may quote the rollout.

    A plugin's own TimeoutError says nothing of the item's limit: who runs into that is called off by the front.
    """
    if isinstance(error, NotScored):
        return _said(reward, error)
    evidence = {"plugin": reward.name, "error": type(error).__name__, "at": _place(error)}
    if isinstance(error, MemoryError):
        return Verdict.not_scored("resource_limit", "memory_limit", evidence=evidence)
    if isinstance(error, (SystemExit, KeyboardInterrupt)):
        return Verdict.not_scored("crashed", "exited", evidence=evidence)
    return Verdict.not_scored("plugin_error", "exception", evidence=evidence)


def _said(reward: Reward, error: NotScored) -> Verdict:
    """What the reward itself says about a rollout that it cannot judge; its own subclass may lack the attributes."""
    reason, feedback = getattr(error, "reason", None), getattr(error, "feedback", None)
    return checked(reward, "", Verdict(status=error.status, reason=reason, feedback=feedback))  # type: ignore[arg-type]


def _place(error: BaseException) -> str:
    """`file.py:line` of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def checked(reward: Reward, rollout_id: str | None, returned: Any) -> Verdict:
    """The verdict that a plugin returned, or `plugin_error` saying in what way it is none."""
    if type(returned) is Verdict and _is_plain(reward, returned):
        verdict: Verdict = returned
    else:
        try:
            verdict = _as_sent(returned)
            fault = _fault(reward, rollout_id, verdict)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            fault = f"the verdict is not plain data: {error}"[:200]
        if fault:
            evidence = {"plugin": reward.name, "error": fault}
            return Verdict.not_scored("plugin_error", "invalid_verdict", evidence=evidence)
        verdict.id = ""
    verdict.cached = False
    return verdict


def _is_plain(reward: Reward, verdict: Any) -> bool:
    """Whether a verdict is clearly in order: most are, and need no second look."""
    low, high = reward.range
    return (
        verdict.status is _SCORED
        and type(verdict.reward) is float
        and low <= verdict.reward <= high
        and type(verdict.reason) is str
        and _is_slug(verdict.reason)
        and (verdict.answer is None or _is_short(verdict.answer))
        and verdict.feedback is None
        and verdict.parts == {}
        and not reward.parts
        and verdict.evidence == {}
        and verdict.id is _UNNAMED
    )


@lru_cache(maxsize=1024)
def _is_slug(reason: str) -> bool:
    """A reason becomes a metric label, so it must not be made of a candidate's text."""
    return _SLUG.fullmatch(reason) is not None


def _as_sent(returned: Any) -> Verdict:
    """A verdict as other processes will see it. Raises TypeError or ValueError when it cannot be sent."""
    if not isinstance(returned, Verdict):
        raise TypeError(f"it is a {type(returned).__name__}, not a Verdict")
    if isinstance(returned.answer, str):
        returned.answer = returned.answer[:_MAX_ANSWER]
    if isinstance(returned.feedback, str):
        returned.feedback = returned.feedback[:MAX_TEXT_BYTES]
    encoded = encode(returned)
    if len(encoded) > _MAX_VERDICT:
        raise ValueError(f"it has more than {_MAX_VERDICT} bytes")
    verdict = _decode_verdict(encoded)
    msgspec.json.encode(verdict)
    return verdict


def _is_short(answer: Any) -> bool:
    return type(answer) is str and len(answer) <= _MAX_ANSWER and answer.isascii()


def checked_group(reward: PerGroup, rollouts: Sequence[Rollout], verdicts: Any) -> list[Verdict]:
    """The verdicts of a group reward, one per rollout; anything else is `plugin_error` for all of them."""
    if not isinstance(verdicts, Sequence) or isinstance(verdicts, (str, bytes)) or len(verdicts) != len(rollouts):
        fault = f"score_group must return {len(rollouts)} verdicts in the order of the rollouts"
        evidence = {"plugin": reward.name, "error": fault}
        return [Verdict.not_scored("plugin_error", "invalid_verdict", evidence=evidence) for _ in rollouts]
    return [checked(reward, rollout.id, verdict) for rollout, verdict in zip(rollouts, verdicts, strict=True)]


def _fault(reward: Reward, rollout_id: str | None, verdict: Verdict) -> str | None:
    """What makes this no verdict, or None."""
    if verdict.id and verdict.id != rollout_id:
        return "the verdict names another rollout"
    if not _is_slug(verdict.reason):
        return "the reason is not a slug of up to 64 lower-case letters, digits and underscores"
    if verdict.status != "scored":
        return None if verdict.reward is None else "a verdict that is not scored has a reward"
    low, high = reward.range
    if verdict.reward is None or not low <= verdict.reward <= high:
        return f"the reward is {verdict.reward!r}, not a number in [{low}, {high}]"
    if (verdict.parts or reward.parts) and set(verdict.parts) != set(reward.parts):
        return f"the parts are {sorted(verdict.parts)}, declared are {sorted(reward.parts)}"
    if not all(part is not None and math.isfinite(part) for part in verdict.parts.values()):
        return "a part is not a finite number"
    return None
