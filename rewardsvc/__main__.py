"""`python -m rewardsvc` is `rewardsvc`."""

from rewardsvc.cli import app

app()
