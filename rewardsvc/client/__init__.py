"""The Python client: `Client` blocks, `AsyncClient` awaits; both offer the same methods and raise the same errors.

    with Client("http://127.0.0.1:8000") as client:
        reply = client.score("math", [r"\\boxed{42}", "41"], reference="42")
        rewards = [verdict.reward for verdict in reply.verdicts]      # None where there is no honest number

It imports the wire models and the errors of rewardsvc, nothing of the server, and aiohttp only once `AsyncClient` is
asked for. What a call is lives in `core`; `sync` and `aio` do the I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rewardsvc.client.sync import Client
from rewardsvc.errors import ClientError, DeadlineExceeded, ServiceRefused, ServiceUnreachable

if TYPE_CHECKING:
    from rewardsvc.client.aio import AsyncClient

__all__ = ["AsyncClient", "Client", "ClientError", "DeadlineExceeded", "ServiceRefused", "ServiceUnreachable"]


def __getattr__(name: str) -> object:
    """aiohttp takes a quarter of a second to import; a trainer that only blocks never pays for it."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rewardsvc.client.aio import AsyncClient

    return AsyncClient
