"""The service does what its own OpenAPI document says: generated requests, right and wrong ones, under every check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.conftest import StartService

HERE = Path(__file__).parent
EXAMPLES_PER_OPERATION, LEAST = 600, 2_000
ALL_PHASES = "examples,coverage,fuzzing"
"""All that apply: the one left out follows links from one operation's reply to another's request; there are none."""


@pytest.mark.timeout(600)
def test_the_service_keeps_to_its_openapi_document(start_service: StartService, tmp_path: Path) -> None:
    with start_service(workers="2", api_keys="key") as service:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json"),
            *("--checks", "all", "--phases", ALL_PHASES, "--mode", "all", "--generation-deterministic"),
            *("--max-examples", str(EXAMPLES_PER_OPERATION)),
            *("--header", "Authorization: Bearer key", "--continue-on-failure", "--no-color"),
        ]
        environment = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-6_000:] + run.stderr[-2_000:]
        generated = re.search(r"(\d+) generated", run.stdout)
        assert generated and int(generated[1]) >= LEAST, run.stdout[-2_000:]
        events = service.log.read_text()
        assert '"internal_error"' not in events
        assert "Traceback" not in events
