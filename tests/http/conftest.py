"""What the attacks share: services that one module of tests keeps for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def run_service(request: pytest.FixtureRequest) -> Callable[..., Iterator[Any]]:
    """Runs a service with the given log and settings, for fixtures of a module."""
    above: Any = request.config.pluginmanager.get_plugin(str(Path(__file__).parent.parent / "conftest.py"))

    def run(log: Path, **options: Any) -> Iterator[Any]:
        with above.running_service(log, **options) as service:
            yield service

    return run
