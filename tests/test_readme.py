"""What the README shows is what happens, and what it links to is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def block(language: str, containing: str) -> str:
    """The fenced block of a language that contains a text."""
    return next(code for code in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in code)


def test_the_curl_example_gives_the_reply_that_is_shown(service: str) -> None:
    command = block("bash", "/v1/rewards/math").replace("http://127.0.0.1:8000", service)
    reply = json.loads(subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout)
    shown = json.loads(block("json", "verdicts"))
    for verdict, promised in zip(reply["verdicts"], shown["verdicts"], strict=True):
        assert {name: verdict[name] for name in promised if name != "…"} == {
            name: value for name, value in promised.items() if name != "…"
        }
    assert reply["group"] == pytest.approx(shown["group"], abs=1e-3)


def test_the_python_example_runs(service: str) -> None:
    code = block("python", "rewardsvc.client").replace("http://127.0.0.1:8000", service) + "\nprint(rewards)\n"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[1.0, 0.0]"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []
