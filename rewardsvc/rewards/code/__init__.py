"""The reward `code`: does a program do what its tests ask for?"""

from rewardsvc.rewards.code.reward import Code

__all__ = ["Code"]
