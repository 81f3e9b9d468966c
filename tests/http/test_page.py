"""The page for people: a command that works as it stands, and nothing loaded from elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.raw_http import ask, head

if TYPE_CHECKING:
    from tests.conftest import Service


@pytest.fixture(scope="module", params=["", "secret"], ids=["open", "with keys"])
def place(
    request: pytest.FixtureRequest, run_service: Callable[..., Iterator[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, str]]:
    for service in run_service(tmp_path_factory.mktemp("page") / "log", workers="1", api_keys=request.param):
        yield service, request.param


def page(service: Service, path: str = "/") -> str:
    lines = head(f"GET {path}").replace(b"Host: x", f"Host: 127.0.0.1:{service.port}".encode())
    return ask(service.port, lines, to="GET").body.decode()


def test_its_command_scores_once_the_key_is_put_in(place: tuple[Service, str]) -> None:
    service, key = place
    command = unescape(re.findall(r"<pre>(.*?)</pre>", page(service), re.DOTALL)[0])
    assert ("Authorization: Bearer KEY" in command) == bool(key)
    done = subprocess.run(["bash", "-c", command.replace("KEY", key)], capture_output=True, check=True)
    assert [verdict["reward"] for verdict in json.loads(done.stdout)["verdicts"]] == [1.0, 0.0]


def test_it_says_that_a_key_is_wanted_where_it_is(place: tuple[Service, str]) -> None:
    service, key = place
    assert ("wants a key" in page(service)) == bool(key)


def test_its_links_lead_somewhere_and_nothing_else_is_loaded(place: tuple[Service, str]) -> None:
    service, key = place
    content = page(service)
    links = {link.partition("#")[0] for link in re.findall(r'href="([^"]*)"', content)} - {"data:,"}
    for link in links:
        assert ask(service.port, head(f"GET /{link}", f"Authorization: Bearer {key}"), to="GET").status == 200, link
    assert "http" not in "".join(links)
    assert "src=" not in content


def test_the_forms_come_first_and_without_a_list_of_schemas(place: tuple[Service, str]) -> None:
    service, _ = place
    assert '"defaultModelsExpandDepth": -1' in page(service, "/docs")
    assert json.loads(page(service, "/openapi.json"))["tags"][0]["name"] == "score"
