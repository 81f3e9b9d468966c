"""Scores the example groups with the blocking client, as a trainer would between sampling and the update.

rewardsvc serve &
python examples/score.py [http://127.0.0.1:8000]
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import msgspec

from rewardsvc.client import Client
from rewardsvc.contract import Rollout


def main(url: str = "http://127.0.0.1:8000") -> None:
    with Client(url, api_key=os.environ.get("REWARDSVC_API_KEY")) as client:
        for line in (Path(__file__).parent / "math.jsonl").read_text(encoding="utf-8").splitlines():
            group = json.loads(line)
            # A list of strings would do; these have ids, and one has a reference of its own.
            rollouts = msgspec.convert(group["rollouts"], list[Rollout])
            reply = client.score("math", rollouts, reference=group["task"]["reference"])
            # None where there is no honest number: leave such a rollout out of the update, it is not a zero.
            rewards = [verdict.reward for verdict in reply.verdicts]
            print(group["group_id"], rewards, f"mean {reply.group.mean:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
