"""A reward that waits as a coroutine, as one that asks somebody else's server would."""

import asyncio
import os
import time

from rewardsvc.reward import Case, Io, PerRollout, Verdict


class Remote(PerRollout):
    """1.0 when the rollout equals the reference, after a pause."""

    name, version = "remote", "1"
    resources = Io(item_timeout=1.0, concurrency=100)
    cases = [Case.full("a", reference="a"), Case.zero("b", reference="a")]

    async def score(self, rollout, task, params):
        if rollout.text == "hang":
            await asyncio.sleep(60)
        if rollout.text == "block":
            time.sleep(60)
        if rollout.text == "exit":
            os._exit(1)
        if rollout.text == "raise":
            raise KeyError(rollout.text)
        await asyncio.sleep(float(task.metadata.get("pause", 0)))
        return Verdict.scored(float(rollout.text == task.reference), "compared")
