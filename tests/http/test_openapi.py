"""The OpenAPI document: valid, complete, and with examples that are answered as it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import jsonschema_rs
import msgspec
import pytest
from schemathesis.specs.openapi import definitions

from rewardsvc.contract import MAX_DEADLINE_MS, STATUSES, RewardInfo
from rewardsvc.errors import PROBLEMS
from rewardsvc.http import app, openapi
from tests.http.raw_http import RIGHT, ask, head, post

if TYPE_CHECKING:
    from tests.conftest import Service

PLUGINS = Path(__file__).parent.parent / "plugins"
NOT_IN_IT = {
    "/docs/oauth2-redirect": "a part of the page /docs",
    "/static-offline-docs": "a part of the page /docs",
    "/problems/": "for people who follow the type of a problem document",
    "/problems/{slug}": "for people who follow the type of a problem document",
    "/v1/rewards/{name}": "stands in the document as one path per reward",
}


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, run_service: Callable[..., Iterator[Service]]) -> Iterator[Service]:
    """A service with a key."""
    yield from run_service(tmp_path_factory.mktemp("keyed") / "log", workers="1", api_keys="key")


@pytest.fixture(scope="module")
def document(service_with_plugins: Service) -> dict[str, Any]:
    found: dict[str, Any] = ask(service_with_plugins.port, head("GET /openapi.json"), to="GET").document
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, made) for path, item in document["paths"].items() for method, made in item.items()]


def follow(document: dict[str, Any], node: Any) -> Any:
    """A node, or what its `$ref` names."""
    while isinstance(node, dict) and "$ref" in node:
        target = document
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_it_is_a_valid_openapi_3_1_document(document: dict[str, Any]) -> None:
    jsonschema_rs.validator_for(definitions.OPENAPI_31).validate(document)
    for name, schema in document["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name


def test_every_reference_in_it_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(references(document)):
        assert follow(document, {"$ref": reference}), reference


def test_operations_have_names_of_their_own(document: dict[str, Any]) -> None:
    names = [made["operationId"] for _, _, made in operations(document)]
    assert len(names) == len(set(names))


def routes(router: Any) -> Iterator[str]:
    """The paths of an application, those of included routers too."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router)
        else:
            yield route.path


def test_every_route_of_the_app_is_in_it(document: dict[str, Any]) -> None:
    served = set(routes(app._pages(Mock(), keys=False)))
    assert served - NOT_IN_IT.keys() <= document["paths"].keys()
    assert NOT_IN_IT.keys() <= served


def test_every_reward_that_is_available_is_in_it(document: dict[str, Any], service_with_plugins: Service) -> None:
    rewards = ask(service_with_plugins.port, head("GET /v1/rewards"), to="GET").document["rewards"]
    available = {f"/v1/rewards/{reward['name']}" for reward in rewards if reward["available"]}
    described = {path for path, item in document["paths"].items() if "post" in item}
    assert described == available
    assert {"/v1/rewards/exact", "/v1/rewards/trouble", "/v1/rewards/rank"} <= available


def test_every_path_that_can_be_read_is_read_as_it_says(
    document: dict[str, Any], service_with_plugins: Service
) -> None:
    for path, method, made in operations(document):
        if method == "get":
            reply = ask(service_with_plugins.port, head(f"GET {path}"), to="GET")
            assert reply.status == 200, path
            (media_type,) = made["responses"]["200"]["content"]
            assert reply.headers["content-type"].split(";")[0] == media_type


def examples(document: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """(path, name, body) of every example of a request."""
    return [
        (path, name, example["value"])
        for path, method, made in operations(document)
        if method == "post"
        for name, example in made["requestBody"]["content"]["application/json"]["examples"].items()
    ]


def test_every_example_is_answered_200_as_documented(document: dict[str, Any], service_with_plugins: Service) -> None:
    sent = examples(document)
    assert {path.rsplit("/", 1)[1] for path, _, _ in sent} >= {"exact", "format", "math"}
    for path, name, body in sent:
        reply = ask(service_with_plugins.port, post(body, reward=path.rsplit("/", 1)[1]))
        assert reply.status == 200, (path, name, reply.body)
        check_against(document, document["components"]["schemas"]["ScoreReply"], reply.document)
        assert len(reply.document["verdicts"]) == len(body["rollouts"])


def test_every_reward_has_an_example_and_each_is_of_the_shape_it_shows(document: dict[str, Any]) -> None:
    for path, method, made in operations(document):
        if method == "post":
            content = made["requestBody"]["content"]["application/json"]
            assert content["examples"], path
            for example in content["examples"].values():
                check_against(document, content["schema"], example["value"])


def check_against(document: dict[str, Any], schema: dict[str, Any], instance: Any) -> None:
    jsonschema_rs.validator_for({"components": document["components"], "allOf": [schema]}).validate(instance)


def test_the_reply_to_an_example_has_the_rewards_that_the_catalogue_promises(
    document: dict[str, Any], service_with_plugins: Service
) -> None:
    info = ask(service_with_plugins.port, head("GET /v1/rewards/exact"), to="GET").document
    for _, kind, body in [example for example in examples(document) if example[0] == "/v1/rewards/exact"]:
        case: dict[str, Any] = next(case for case in info["cases"] if case["kind"] == kind)
        reply = ask(service_with_plugins.port, post(body))
        assert [verdict["reward"] for verdict in reply.document["verdicts"]] == case["rewards"]


def test_its_problems_are_those_there_are(document: dict[str, Any]) -> None:
    documented = set()
    for response in document["components"]["responses"].values():
        (content,) = response["content"].values()
        documented |= set(content["schema"]["allOf"][1]["properties"]["type"]["enum"])
    assert documented == {f"/problems/{problem.slug}" for problem in PROBLEMS}


def test_limits_stand_in_the_schemas(document: dict[str, Any]) -> None:
    request = document["components"]["schemas"]["exact.Request"]
    assert request["additionalProperties"] is False
    assert request["properties"]["rollouts"]["maxItems"] == 4_096
    assert request["properties"]["deadline_ms"]["maximum"] == MAX_DEADLINE_MS
    verdict = document["components"]["schemas"]["Verdict"]
    assert set(verdict["properties"]["status"]["enum"]) == set(STATUSES)
    assert document["components"]["schemas"]["exact.Params"]["additionalProperties"] is False


def test_it_says_which_paths_need_a_key(keyed: Service) -> None:
    document = ask(keyed.port, head("GET /openapi.json"), to="GET").document
    assert document["security"] == [{"key": []}]
    for path, method, made in operations(document):
        request = post(RIGHT, reward=path.rsplit("/", 1)[1]) if method == "post" else head(f"GET {path}")
        status = ask(keyed.port, request).status
        assert status == (200 if made.get("security") == [] else 401), path


def test_rewards_with_like_names_do_not_share_components(service_with_plugins: Service) -> None:
    exact = ask(service_with_plugins.port, head("GET /v1/rewards/exact"), to="GET").document
    rewards = {name: msgspec.convert(exact | {"name": name}, RewardInfo) for name in ("a_b", "ab", "score", "a")}
    for name, info in rewards.items():
        info.params = {"$ref": "#/$defs/Params", "$defs": {"Params": {"title": name, "type": "object"}}}
    schemas = openapi.build(rewards)["components"]["schemas"]
    for name in rewards:
        assert schemas[f"{name}.Params"]["title"] == name
        assert schemas[f"{name}.Request"]["properties"]["params"]["$ref"].endswith(f"/{name}.Params")
    assert "$ref" not in schemas["ScoreRequest"]["properties"]["params"]


def test_numbers_that_are_whole_are_integers_as_the_schema_says(service_with_plugins: Service) -> None:
    group = RIGHT | {"deadline_ms": 30_000.0, "params": {"answer_digits": 6.0}}
    assert ask(service_with_plugins.port, post(group, reward="math")).status == 200
    for wrong in ({"deadline_ms": 30_000.5}, {"deadline_ms": 1e300}, {"params": {"answer_digits": 6.5}}):
        assert ask(service_with_plugins.port, post(group | wrong, reward="math")).status == 422
