"""`GET /v1/rewards` and `GET /v1/rewards/{name}`: what can be scored, and how it wants to be asked."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Response

from rewardsvc.contract import RewardInfo
from rewardsvc.errors import NotFound
from rewardsvc.http.problem import JSON
from rewardsvc.scheduler import Scheduler


class RewardList(msgspec.Struct):
    """Every reward, by name."""

    rewards: list[RewardInfo]


def routes(scheduler: Scheduler) -> APIRouter:
    """The catalogue's routes."""
    router = APIRouter()

    @router.get("/v1/rewards")
    async def list_rewards() -> Response:
        infos = sorted(scheduler.catalogue.values(), key=lambda info: info.name)
        return Response(msgspec.json.encode(RewardList(infos)), media_type=JSON)

    @router.api_route("/v1/rewards/{name}", methods=["GET", "POST"])  # POST never gets here; it is named for `Allow`
    async def show_reward(name: str) -> Response:
        info = scheduler.catalogue.get(name)
        if info is None:
            raise NotFound(f"There is no reward {name[:64]!r}; GET /v1/rewards lists those there are.")
        return Response(msgspec.json.encode(info), media_type=JSON)

    return router
