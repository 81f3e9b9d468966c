"""What the tests of the executors share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.executors.watched import Watched, watched_service

StartWatched = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A service with all plugins and two workers, shared by the tests of a file."""
    with watched_service(tmp_path_factory.mktemp("service") / "log") as service:
        yield service


@pytest.fixture
def start_watched(tmp_path: Path) -> StartWatched:
    """Starts services with settings of the test's own."""
    return lambda **settings: watched_service(tmp_path / f"log-{time.monotonic_ns()}", **settings)
