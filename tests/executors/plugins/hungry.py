"""A reward that eats memory when it is told to, with enough time to be caught at it on a loaded machine."""

from rewardsvc.reward import Case, Cpu, PerRollout, Verdict


class Hungry(PerRollout):
    """1.0 when the rollout equals the reference."""

    name, version = "hungry", "1"
    resources = Cpu(item_timeout=20, memory_mb=200)
    cases = [Case.full("fine", reference="fine")]

    def score(self, rollout, task, params):
        hoard = []
        try:
            while rollout.text.startswith("eat"):
                hoard.append(b"x" * (1 << 20))
        except MemoryError:
            pass
        return Verdict.scored(float(rollout.text == task.reference), "compared")
