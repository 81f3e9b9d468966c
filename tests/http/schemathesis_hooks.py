"""What JSON Schema cannot say about a request, for the bodies that schemathesis makes (see test_schemathesis.py)."""

from __future__ import annotations

from typing import Any

import msgspec
import schemathesis

from rewardsvc import registry
from rewardsvc.contract import Task
from rewardsvc.reward import InvalidTask, Reward

REWARDS = {loaded.info.name: loaded.reward for loaded in map(registry.load, registry.find(()))}


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Repairs two things: ids that are not unique, and params of the right shape that contradict each other.

    The second kind is what a reward's `check_task` refuses with the same documented 422. Whatever else is wrong with a
    body stays as it is.
    """
    body, operation = case.body, case.operation
    if not isinstance(body, dict) or operation.method.upper() != "POST":
        return
    make_ids_unique(body.get("rollouts"))
    if "params" in body and makes_no_sense(REWARDS[operation.path.rsplit("/", 1)[-1]], body["params"]):
        del body["params"]


def make_ids_unique(rollouts: Any) -> None:
    """An id that occurs before, as an id or as the index of a rollout without one, is left out."""
    seen: set[str] = {str(index) for index in range(len(rollouts))} if isinstance(rollouts, list) else set()
    for rollout in rollouts if isinstance(rollouts, list) else ():
        if isinstance(rollout, dict) and isinstance(rollout.get("id"), str):
            if rollout["id"] in seen:
                del rollout["id"]
            else:
                seen.add(rollout["id"])


def makes_no_sense(reward: Reward | None, params: Any) -> bool:
    """Whether the params have the right shape and the reward refuses them all the same."""
    assert reward is not None
    try:
        reward.check_task(Task(), msgspec.convert(params, reward.Params))
    except msgspec.ValidationError:
        return False
    except InvalidTask:
        return True
    return False
