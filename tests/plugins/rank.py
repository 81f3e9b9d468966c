"""A reward that judges the whole group at once."""

import os
import time

from rewardsvc.reward import Case, Cpu, PerGroup, Verdict


class Rank(PerGroup):
    """The longest rollouts get 1.0, the shortest 0.0."""

    name, version = "rank", "1"
    resources = Cpu(item_timeout=0.5)
    deterministic = True
    cases = [Case.group(["a", "bbb", "cc"], [0.0, 1.0, 0.5])]

    def score_group(self, rollouts, task, params):
        texts = [rollout.text for rollout in rollouts]
        if "exit" in texts:
            os._exit(1)
        if "hang" in texts:
            time.sleep(60)
        if "too few" in texts:
            return []
        lengths = sorted({len(text) for text in texts})
        last = max(1, len(lengths) - 1)
        return [Verdict.scored(lengths.index(len(text)) / last, "ranked") for text in texts]
