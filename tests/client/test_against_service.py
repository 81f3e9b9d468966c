"""The clients against the real service. `service` is its base URL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rewardsvc.client import AsyncClient, Client, ServiceRefused

Connect = Callable[..., Any]


def test_a_right_answer_scores_one(service: str, connect: Connect) -> None:
    reply = connect(service).score("exact", [r"\boxed{42}", r"\boxed{41}"], reference="42")
    assert [verdict.reward for verdict in reply.verdicts] == [1.0, 0.0]
    assert (reply.reward, reply.group.size, reply.group.scored) == ("exact", 2, 2)


def test_both_clients_get_the_same_verdicts(service: str) -> None:
    rollouts = [r"\boxed{42}", "41", ""]

    async def awaited() -> list[Any]:
        async with AsyncClient(service) as client:
            return [verdict.reward for verdict in (await client.score("exact", rollouts, reference="42")).verdicts]

    with Client(service) as client:
        blocking = [verdict.reward for verdict in client.score("exact", rollouts, reference="42").verdicts]
    assert asyncio.run(awaited()) == blocking


def test_the_request_id_comes_back(service: str, connect: Connect) -> None:
    assert connect(service).score("exact", [], request_id="step-7").request_id == "step-7"


def test_an_unknown_reward_is_404(service: str, connect: Connect) -> None:
    with pytest.raises(ServiceRefused) as refused:
        connect(service).score("no_such_reward", ["42"], reference="42")
    assert (refused.value.status, refused.value.slug) == (404, "not-found")


def test_wrong_params_are_422_and_say_where(service: str, connect: Connect) -> None:
    with pytest.raises(ServiceRefused) as refused:
        connect(service).score("exact", ["42"], reference="42", params={"no_such_parameter": 1})
    assert refused.value.status == 422
    assert refused.value.errors[0][0].startswith("/params")


def test_a_malformed_chat_is_422_and_says_where(service: str, connect: Connect) -> None:
    with pytest.raises(ServiceRefused) as refused:
        connect(service).score("exact", ["42", [{"role": "assistant"}]], reference="42")
    assert (refused.value.status, refused.value.errors[0][0]) == (422, "/rollouts/1/completion/0")


def test_half_a_surrogate_pair_is_refused_by_the_service(service: str, connect: Connect) -> None:
    with pytest.raises(ServiceRefused) as refused:
        connect(service).score("exact", ["4\ud8002"], reference="42")
    assert refused.value.status == 400


def test_the_catalogue_lists_what_it_describes(service: str, connect: Connect) -> None:
    client = connect(service)
    names = [info.name for info in client.rewards()]
    assert "exact" in names
    assert client.reward("exact").name == "exact"


def test_a_running_service_is_ready(service: str, connect: Connect) -> None:
    assert connect(service).ready() is True
