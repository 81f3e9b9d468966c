"""A deterministic reward that takes the time its rollout asks for, and counts in a file how often it was run."""

import time

from rewardsvc.reward import Case, Cpu, PerRollout, Verdict


class Patient(PerRollout):
    """1.0 after as many seconds as the rollout says."""

    name, version = "patient", "1"
    resources = Cpu(item_timeout=10.0)
    deterministic = True
    cases = [Case.full("0")]

    def score(self, rollout, task, params):
        if "log" in task.metadata:
            with open(task.metadata["log"], "a", encoding="utf-8") as log:
                log.write("run\n")
        time.sleep(float(rollout.text.split()[0]))
        return Verdict.scored(1.0, "waited")
