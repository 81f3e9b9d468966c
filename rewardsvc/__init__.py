"""rewardsvc: the reward service for RL post-training. Rollout groups in, honest verdicts out.

A plugin imports from `rewardsvc.reward`, a trainer from `rewardsvc.client`; nothing heavy is imported here.
"""

__version__ = "0.1.0"
