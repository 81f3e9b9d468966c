"""The reward `math`: is the final answer of a completion mathematically the same as the reference?"""

from rewardsvc.rewards.math.reward import Math

__all__ = ["Math"]
