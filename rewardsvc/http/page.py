"""`GET /`: the page for people. What rewards there are, whether they work, and a command to try one."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from rewardsvc import __version__
from rewardsvc.contract import RewardInfo
from rewardsvc.scheduler import Scheduler

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:3rem auto;padding:0 1rem;color:#1a1a1a}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.4rem .8rem .4rem 0;border-bottom:1px solid #ddd}
pre{background:#f4f4f4;padding:1rem;overflow-x:auto}.no{color:#b00020}.yes{color:#0a7d28}a{color:#0b57d0}
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}pre{background:#222}th,td{border-color:#444}
a{color:#8ab4f8}.no{color:#ff7a85}.yes{color:#6ddc8c}}"""

_EXAMPLE = r'{"task": {"reference": "42"}, "rollouts": [{"completion": "\\boxed{42}"}, {"completion": "41"}]}'


def routes(scheduler: Scheduler, keys: bool) -> APIRouter:
    """The page's route; `keys` says whether this service asks for one."""
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(_page(scheduler, str(request.base_url).rstrip("/"), keys))

    return router


def frame(title: str, body: str) -> str:
    """A whole HTML page; `body` is HTML already. It asks for nothing else, not even an icon."""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">
<style>{_STYLE}</style></head><body>
{body}
</body></html>"""


def _page(scheduler: Scheduler, base: str, keys: bool) -> str:
    rows = "".join(_row(info) for _, info in sorted(scheduler.catalogue.items()))
    reasons = scheduler.not_ready_because()
    state = f'<p class="no">Not ready: {escape("; ".join(reasons))}.</p>' if reasons else '<p class="yes">Ready.</p>'
    key = "-H 'Authorization: Bearer KEY' " if keys else ""
    wanted = "<p>This service wants a key, for scoring, the catalogue and the metrics.</p>" if keys else ""
    body = f"""<h1>rewardsvc {escape(__version__)}</h1>{state}
<table><thead><tr><th>Reward</th><th>What it judges</th><th>State</th></tr></thead><tbody>{rows}</tbody></table>
<h2>Try it</h2>{wanted}<pre>curl {escape(base)}/v1/rewards/exact {key}-H 'Content-Type: application/json' \\
  -d '{_EXAMPLE}'</pre>
<p><a href="docs">Try every reward in the browser</a> · <a href="v1/rewards">catalogue</a> ·
<a href="openapi.json">OpenAPI</a> · <a href="readyz">readiness</a> · <a href="metrics">metrics</a> ·
<a href="problems/">problems</a></p>"""
    return frame("rewardsvc", body)


def _row(info: RewardInfo) -> str:
    name, summary = escape(info.name), escape(info.summary)
    link = f'<a href="docs#/score/score_{name}">{name}</a>'
    if info.available:
        return f'<tr><td>{link}</td><td>{summary}</td><td class="yes">available</td></tr>'
    because = escape(info.unavailable_because or "")
    return f'<tr><td>{name}</td><td>{summary}</td><td class="no">unavailable: {because}</td></tr>'
