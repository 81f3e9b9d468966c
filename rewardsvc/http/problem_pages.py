"""`GET /problems/<slug>`: the page that the `type` of a problem names, made from the docstrings in `errors`."""

from __future__ import annotations

import inspect
import re
from html import escape

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from rewardsvc.errors import PROBLEMS, NotFound, Problem
from rewardsvc.http.page import frame
from rewardsvc.http.problem import TYPE_PREFIX

_BY_SLUG = {problem.slug: problem for problem in sorted(PROBLEMS, key=lambda problem: (problem.status, problem.slug))}


def routes() -> APIRouter:
    """One page per problem type, and the list of them."""
    router = APIRouter(include_in_schema=False)

    @router.get(TYPE_PREFIX)
    async def problems() -> HTMLResponse:
        return HTMLResponse(_list())

    @router.get(TYPE_PREFIX + "{slug}")
    async def problem(slug: str) -> HTMLResponse:
        found = _BY_SLUG.get(slug)
        if found is None:
            raise NotFound("There is no such type of problem; GET /problems/ lists those there are.")
        return HTMLResponse(_page(found))

    return router


def _list() -> str:
    rows = "".join(
        f'<tr><td>{kind.status}</td><td><a href="{slug}">{slug}</a></td><td>{escape(kind.title)}</td></tr>'
        for slug, kind in _BY_SLUG.items()
    )
    head = "<thead><tr><th>HTTP status</th><th>Type</th><th>What happened</th></tr></thead>"
    return frame("Problems", f"<h1>Problems</h1><table>{head}<tbody>{rows}</tbody></table>")


def _page(kind: type[Problem]) -> str:
    meaning, _, remedy = (inspect.getdoc(kind) or "").partition("\n")
    again = "may succeed later" if kind.retryable else "is not expected to succeed"
    type_ = f"HTTP {kind.status}, <code>{TYPE_PREFIX}{kind.slug}</code>"
    return frame(
        kind.title,
        f"<h1>{escape(kind.title)}</h1><p>{type_}. {_html(meaning)}</p><p>{_html(remedy.strip())}</p>"
        f"<p>The same request {again}. The reply itself says more in <code>detail</code>.</p>"
        '<p><a href="./">All problems</a></p>',
    )


def _html(text: str) -> str:
    """Docstring text: escaped, with its code marked."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
