"""The OpenAPI document, made from the catalogue and the wire models: one path per reward, each with examples.

The route `/v1/rewards/{name}` stands in the document as one path per installed reward, so that `/docs` offers a form
for each with its own parameters.
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
from rewardsvc.http.problem import JSON, MEDIA_TYPE, TYPE_PREFIX, ProblemDocument
from rewardsvc.http.score import NDJSON, SCORE_PREFIX

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
_OPEN_ERRORS = (400, 405, 408, 413, 500)
_GET_ERRORS = (400, 401, 403, 404, 405, 408, 413, 500)
_POST_ERRORS = (400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503)
_HEADERS = {
    "X-Request-ID": {
        "description": "The caller's id if it is 1 to 128 printable characters without spaces, else one of ours.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the same request is sent again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "WWW-Authenticate": {
        "description": "How to send a key.",
        "required": True,
        "schema": {"const": "Bearer"},
    },
    "Allow": {"description": "The methods that there are.", "required": True, "schema": {"type": "string"}},
}
_HEADERS_OF = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    408: ("Retry-After",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
_TAGS = {
    "score": "One form per reward, filled with its own cases.",
    "catalogue": "What can be scored, and how it wants to be asked.",
    "health": "For balancers, probes and Prometheus.",
    "pages": "For people.",
}
_DESCRIPTION = """A trainer sends a rollout group, the service answers with one verdict per rollout.

A verdict is `scored` with a finite reward, or it is not scored, with `reward: null`, a status and a reason: a failure
is never a zero. Every error is `application/problem+json` (RFC 9457), whose `type` is a page that explains it."""


def build(catalogue: Mapping[str, RewardInfo], keys: bool = False) -> dict[str, Any]:
    """The whole document for the rewards that are available; `keys` says whether this service asks for one."""
    schemas = _shared_schemas()
    paths = _fixed_paths()
    for info in (info for _, info in sorted(catalogue.items()) if info.available):
        schemas |= _reward_schemas(info)
        show = _get(f"show_{info.name}", f"{info.name}: params, reasons, cases.", _json("RewardInfo"), "catalogue")
        paths[f"{SCORE_PREFIX}{info.name}"] = {"get": show, "post": _score_operation(info)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "rewardsvc", "version": __version__, "description": _DESCRIPTION},
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": _problem_responses(),
            "headers": _HEADERS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Needed when keys are set."}
            },
        },
        "security": [{"key": []}] if keys else [{}, {"key": []}],
    }


def _shared_schemas() -> dict[str, Any]:
    _, components = msgspec.json.schema_components(_MODELS, ref_template=_COMPONENTS + "{name}")
    return dict(components)


def _reward_schemas(info: RewardInfo) -> dict[str, Any]:
    """A reward's request, whose `params` are its own; names are prefixed so that rewards do not collide."""
    prefix = f"{info.name}."
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
    request = {"schema": {"$ref": f"{_COMPONENTS}{info.name}.Request"}, "examples": _examples(info)}
    lines = {"type": "string", "description": "One Verdict per line as it is ready, then one StreamEnd."}
    replies = {**_json("ScoreReply"), NDJSON: {"schema": lines}}
    return {
        "operationId": f"score_{info.name}",
        "tags": ["score"],
        "summary": info.summary,
        "description": info.description,
        "requestBody": {"required": True, "content": {JSON: request}},
        "responses": {
            "200": _response("Verdicts in the order of the rollouts.", replies),
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


def _fixed_paths() -> dict[str, Any]:
    not_ready = {"503": _response("Not ready, and why.", _json("Readiness"))}
    text, page = {"text/plain": {"schema": {"type": "string"}}}, {"text/html": {"schema": {"type": "string"}}}
    this = {JSON: {"schema": {"type": "object"}}}
    operations = {
        "/v1/rewards": _get("list_rewards", "Every reward.", _json("RewardList"), "catalogue"),
        "/livez": _get("livez", "The event loop answers.", _json("Live"), "health", is_open=True),
        "/readyz": _get("readyz", "Whether to send requests here.", _json("Readiness"), "health", not_ready, True),
        "/version": _get("version", "What runs here.", _json("Version"), "health", is_open=True),
        "/metrics": _get("metrics", "Prometheus metrics.", text, "health"),
        "/": _get("page", "The page for people.", page, "pages", is_open=True),
        "/docs": _get("docs", "Forms to try every reward.", page, "pages", is_open=True),
        "/openapi.json": _get("openapi", "This document.", this, "pages", is_open=True),
    }
    return {path: {"get": operation} for path, operation in operations.items()}


def _get(
    name: str,
    summary: str,
    content: dict[str, Any],
    tag: str,
    extra: Mapping[str, Any] | None = None,
    is_open: bool = False,
) -> dict[str, Any]:
    """An operation that only reads; `is_open` when it never needs a key."""
    errors = _errors(_OPEN_ERRORS if is_open else _GET_ERRORS)
    responses = {"200": _response(summary, content), **errors, **(extra or {})}
    operation = {"operationId": name, "tags": [tag], "summary": summary, "responses": responses}
    return operation | {"security": []} if is_open else operation


def _json(model: str) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": _COMPONENTS + model}}}


def _response(description: str, content: dict[str, Any], *headers: str) -> dict[str, Any]:
    """A response with these headers besides the request id, which every one has."""
    named = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *headers)}
    return {"description": description, "headers": named, "content": content}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def _problem_responses() -> dict[str, Any]:
    """One response per error status, naming the problem types that it may carry."""
    responses: dict[str, Any] = {}
    for status in sorted({problem.status for problem in PROBLEMS}):
        kinds = [problem for problem in PROBLEMS if problem.status == status]
        narrowed = {"type": {"enum": [TYPE_PREFIX + kind.slug for kind in kinds]}, "status": {"const": status}}
        schema = {"allOf": [{"$ref": _COMPONENTS + "ProblemDocument"}, {"properties": narrowed}]}
        description = " ".join(f"{kind.title} (`{kind.slug}`)." for kind in kinds)
        headers = _HEADERS_OF.get(status, ())
        responses[f"Problem{status}"] = _response(description, {MEDIA_TYPE: {"schema": schema}}, *headers)
    return responses
