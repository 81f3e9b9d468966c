"""Scores all example groups at once with the asyncio client, and says why rollouts have no number.

rewardsvc serve &
python examples/score_async.py [http://127.0.0.1:8000]
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import msgspec

from rewardsvc.client import AsyncClient
from rewardsvc.contract import Rollout, ScoreReply, Task


async def score(client: AsyncClient, group: dict) -> ScoreReply:
    rollouts = msgspec.convert(group["rollouts"], list[Rollout])  # with ids and references of their own
    task = msgspec.convert(group["task"], Task)
    return await client.score(group["reward"], rollouts, task=task, params=group.get("params"))


async def main(url: str = "http://127.0.0.1:8000") -> None:
    lines = [line for path in sorted(Path(__file__).parent.glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    groups = [json.loads(line) for line in lines]
    async with AsyncClient(url, api_key=os.environ.get("REWARDSVC_API_KEY")) as client:
        replies = await asyncio.gather(*(score(client, group) for group in groups))
    for group, reply in zip(groups, replies, strict=True):
        print(f"{group['group_id']}: {reply.group.scored} of {reply.group.size} scored")
        for verdict in reply.verdicts:
            if verdict.reward is None:
                print(f"  {verdict.id} has no number: {verdict.status}, {verdict.reason}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
