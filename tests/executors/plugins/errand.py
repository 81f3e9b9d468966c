"""A coroutine reward with tasks of its own and bad manners."""

import asyncio
import time

from rewardsvc.reward import Case, InvalidTask, Io, PerRollout, Verdict

LEFT_BEHIND = []


async def _block():
    time.sleep(60)


async def _be_stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            continue


async def _eat(hoard):
    while True:
        hoard.append(b"x" * (1 << 22))
        await asyncio.sleep(0)


class Errand(PerRollout):
    """1.0 when the rollout equals the reference, unless it names a deed."""

    name, version = "errand", "1"
    resources = Io(item_timeout=0.8, memory_mb=200, concurrency=50)
    cases = [Case.full("a", reference="a")]

    def check_task(self, task, params):
        if task.metadata.get("deed") == "block":
            time.sleep(60)
        if task.metadata.get("deed") == "refuse":
            raise InvalidTask("/task", "refused")

    async def score(self, rollout, task, params):
        if rollout.text == "block in a task":
            await asyncio.create_task(_block())
        if rollout.text == "leave a task that blocks":
            LEFT_BEHIND.append(asyncio.create_task(_block()))
        if rollout.text == "stubborn":
            await _be_stubborn()
        if rollout.text == "eat":
            await _eat([])
        await asyncio.sleep(float(task.metadata.get("pause", 0)))
        return Verdict.scored(float(rollout.text == task.reference), "compared")
