"""The OpenAPI document, made from the catalogue and the wire models: one operation per reward, each with an example.

The generic route `/v1/rewards/{name}` stands in the document as one path per installed reward, so that `/docs` offers a
form for each with its own parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rewardsvc import __version__
from rewardsvc.contract import RewardInfo, ScoreReply, ScoreRequest, StreamEnd, Verdict
from rewardsvc.errors import PROBLEMS
from rewardsvc.http.catalogue import RewardList
from rewardsvc.http.health import Live, Readiness, Version
from rewardsvc.http.problem import JSON, MEDIA_TYPE, ProblemDocument
from rewardsvc.http.score import NDJSON

_COMPONENTS = "#/components/schemas/"
_MODELS = (
    ScoreRequest,
    ScoreReply,
    Verdict,
    StreamEnd,
    RewardList,
    RewardInfo,
    ProblemDocument,
    Live,
    Readiness,
    Version,
)
_GET_ERRORS = (400, 401, 403, 404, 405, 500, 503)
_POST_ERRORS = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 500, 503)
_DESCRIPTION = """A trainer sends a rollout group, the service answers with one verdict per rollout.

A verdict is `scored` with a finite reward, or it is not scored, with `reward: null`, a status and a reason: a failure
is never a zero. Every error is `application/problem+json` (RFC 9457)."""


def build(catalogue: Mapping[str, RewardInfo]) -> dict[str, Any]:
    """The whole document for the rewards that are available."""
    schemas = _shared_schemas()
    rewards = [info for _, info in sorted(catalogue.items()) if info.available]
    paths = _fixed_paths(rewards)
    for info in rewards:
        schemas |= _reward_schemas(info)
        paths.setdefault(f"/v1/rewards/{info.name}", {})["post"] = _score_operation(info)
    return {
        "openapi": "3.1.0",
        "info": {"title": "rewardsvc", "version": __version__, "description": _DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": _responses(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Needed when keys are set."}
            },
        },
        "security": [{}, {"key": []}],
    }


def _shared_schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(_MODELS, ref_template=_COMPONENTS + "{name}")
    return dict(components)


def _reward_schemas(info: RewardInfo) -> dict[str, Any]:
    """A reward's request, whose `params` are its own; names are prefixed so that rewards do not collide."""
    prefix = "".join(word.capitalize() for word in info.name.split("_"))
    own = dict(info.params.get("$defs", {}))
    schemas = {f"{prefix}{name}": _renamed(schema, prefix) for name, schema in own.items()}
    request: dict[str, Any] = dict(_shared_schemas()["ScoreRequest"])
    request |= {
        "title": f"{prefix}Request",
        "properties": {**request["properties"], "params": _renamed(info.params["$ref"], prefix)},
    }
    return {**schemas, f"{prefix}Request": request}


def _renamed(schema: Any, prefix: str) -> Any:
    """A schema whose references to `#/$defs/X` point to the component with the reward's prefix."""
    if isinstance(schema, str):
        return {"$ref": schema.replace("#/$defs/", _COMPONENTS + prefix)}
    if isinstance(schema, list):
        return [_renamed(item, prefix) if isinstance(item, (dict, list)) else item for item in schema]
    renamed = {}
    for name, value in schema.items():
        if name == "$ref":
            renamed[name] = value.replace("#/$defs/", _COMPONENTS + prefix)
        else:
            renamed[name] = _renamed(value, prefix) if isinstance(value, (dict, list)) else value
    return renamed


def _score_operation(info: RewardInfo) -> dict[str, Any]:
    prefix = "".join(word.capitalize() for word in info.name.split("_"))
    lines = {"schema": {"type": "string"}, "description": "One Verdict per line as it is ready, then one StreamEnd."}
    return {
        "operationId": f"score_{info.name}",
        "tags": ["score"],
        "summary": info.summary,
        "description": info.description,
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": f"{_COMPONENTS}{prefix}Request"}, "examples": _examples(info)}},
        },
        "responses": {
            "200": {
                "description": "Verdicts in the order of the rollouts.",
                "content": {JSON: {"schema": {"$ref": _COMPONENTS + "ScoreReply"}}, NDJSON: lines},
            },
            **_errors(_POST_ERRORS),
        },
    }


def _examples(info: RewardInfo) -> dict[str, Any]:
    """The reward's own cases as requests: the first of each kind."""
    examples: dict[str, Any] = {}
    for case in info.cases:
        if case.kind in examples:
            continue
        task = {"prompt": case.prompt, "reference": case.reference}
        body = {"task": task, "rollouts": [{"completion": text} for text in case.rollouts], "params": case.params}
        examples[case.kind] = {"summary": case.why or case.kind, "value": body}
    return examples


def _fixed_paths(rewards: list[RewardInfo]) -> dict[str, Any]:
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": [info.name for info in rewards]},
        "example": rewards[0].name if rewards else "math",
    }
    not_ready = {"description": "Not ready.", "content": _content("Readiness")}
    return {
        "/v1/rewards": {"get": _get("list_rewards", "Every reward.", "RewardList", "catalogue")},
        "/v1/rewards/{name}": {
            "get": {
                **_get("show_reward", "One reward: params, reasons, cases.", "RewardInfo", "catalogue"),
                "parameters": [name],
            }
        },
        "/livez": {"get": _get("livez", "The event loop answers.", "Live", "health")},
        "/readyz": {
            "get": _get("readyz", "Whether requests should be sent here.", "Readiness", "health", {"503": not_ready})
        },
        "/version": {"get": _get("version", "What runs here.", "Version", "health")},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "tags": ["health"],
                "summary": "Prometheus metrics.",
                "responses": {
                    "200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                    **_errors(_GET_ERRORS),
                },
            }
        },
    }


def _get(operation: str, summary: str, model: str, tag: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    ok = {"200": {"description": summary, "content": _content(model)}}
    responses = {**ok, **_errors(_GET_ERRORS), **(extra or {})}
    return {"operationId": operation, "tags": [tag], "summary": summary, "responses": responses}


def _content(model: str) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": _COMPONENTS + model}}}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def _responses() -> dict[str, Any]:
    """One response per error status, naming the problem types that it may carry."""
    schema = {MEDIA_TYPE: {"schema": {"$ref": _COMPONENTS + "ProblemDocument"}}}
    titles: dict[int, list[str]] = {}
    for problem in PROBLEMS:
        titles.setdefault(problem.status, []).append(f"{problem.title} (`{problem.slug}`).")
    return {
        f"Problem{status}": {"description": " ".join(lines), "content": schema}
        for status, lines in sorted(titles.items())
    }
