"""Writes the pages that are made from the code: rewards, problems, settings, metrics, and the table in the README.

.venv/bin/python docs/build.py            write them
.venv/bin/python docs/build.py --check    say which are out of date, exit 1 if any is
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any, get_args

from prometheus_client.metrics_core import Metric

from rewardsvc import contract, errors, observe, registry
from rewardsvc.contract import CaseInfo, RewardInfo
from rewardsvc.settings import PREFIX, Settings

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
TABLE_START, TABLE_END = "<!-- rewards: made by docs/build.py -->", "<!-- /rewards -->"
MADE = "<!-- Made by docs/build.py from the code; edit the code. -->\n\n"
STATUS_MEANINGS = {
    "scored": "A number. `reward` is finite.",
    "bad_reference": "What the caller gave to judge by cannot be used.",
    "bad_item": "This rollout cannot be judged: no assistant turn, or longer than 1 MiB.",
    "timeout": "The deadline of the group (`deadline`) or the item's limit of the verifier (`item_limit`) passed.",
    "resource_limit": "The verifier ran out of memory.",
    "crashed": "The process that judged this rollout died.",
    "plugin_error": "The reward's own code failed or returned something that is no verdict.",
    "sandbox_error": "The sandbox failed.",
    "judge_error": "The judge model gave no usable verdict.",
    "unavailable": "What this reward needs is not there at the moment.",
}


def main() -> int:
    pages = build()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"out of date: {path.relative_to(DOCS.parent)} (run `python docs/build.py`)")
        return bool(stale)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages[path], encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


def build() -> dict[Path, str]:
    """Every page by path."""
    rewards = own_rewards()
    pages = {DOCS / "rewards" / f"{info.name}.md": MADE + reward_page(info) for info in rewards}
    pages[DOCS / "errors.md"] = MADE + errors_page()
    pages[DOCS / "settings.md"] = MADE + settings_page()
    pages[DOCS / "metrics.md"] = MADE + metrics_page()
    pages[README] = with_table(README.read_text(encoding="utf-8"), rewards)
    return pages


def own_rewards() -> list[RewardInfo]:
    """The rewards that ship with rewardsvc, whatever else is installed."""
    infos = [registry.load(found).info for found in registry.find([]) if found.wheel.startswith("rewardsvc ")]
    broken = [f"{info.name}: {info.unavailable_because}" for info in infos if not info.available]
    if broken:
        raise SystemExit("\n".join(broken))
    return sorted(infos, key=lambda info: info.name)


def reward_page(info: RewardInfo) -> str:
    """What a caller needs to know of one reward."""
    judged = "the whole group" if info.per_group else "each rollout by itself"
    parts = [
        f"# `{info.name}`\n\n{info.summary}\n",
        info.description + "\n" if info.description else "",
        f"Version {info.version}. Judges {judged}. Rewards lie in [{info.range[0]:g}, {info.range[1]:g}].",
        f"Runs on `{info.resources.kind}`, at most {info.resources.item_timeout:g} s and "
        f"{info.resources.memory_mb} MiB for one item."
        + (" Equal input gives an equal verdict, so verdicts are cached.\n" if info.deterministic else "\n"),
        f"`reference`: {type_of(info.reference)}.\n",
        params_table(info.params),
        parts_list(info.parts),
        table("## Reasons", ("reason", "meaning"), [(f"`{slug}`", plain(text)) for slug, text in info.reasons.items()]),
        cases_table(info.cases),
        example(info),
    ]
    return "\n".join(part for part in parts if part)


def params_table(schema: dict[str, Any]) -> str:
    """The fields of a `Params` class."""
    own = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    rows = [
        (f"`{name}`", type_of(field), f"`{json.dumps(field.get('default'))}`", plain(field.get("description", "")))
        for name, field in own["properties"].items()
    ]
    return table("## `params`", ("name", "type", "default", "meaning"), rows)


def type_of(schema: dict[str, Any]) -> str:
    """A JSON Schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(type_of(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of ({type_of(schema.get('items', {}))})"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return " ".join([schema.get("type", "not used by this reward" if not schema else "anything"), *bounds])


def parts_list(parts: list[str]) -> str:
    """The names of the partial rewards."""
    return "## `parts`\n\n" + ", ".join(f"`{part}`" for part in parts) + "\n" if parts else ""


def cases_table(cases: list[CaseInfo]) -> str:
    """The cases, which are also the reward's self-test."""
    rows = [
        (
            case.kind,
            code(case.rollouts),
            code([case.reference]),
            code([case.params]) if case.params else "",
            reward_text(case),
            plain(case.why or case.reason or ""),
        )
        for case in cases
    ]
    return table("## Cases (run at every start)", ("kind", "completion", "reference", "params", "reward", "why"), rows)


def reward_text(case: CaseInfo) -> str:
    """The promised rewards, or the status where there is no number."""
    return ", ".join(case.status or "not scored" if reward is None else f"{reward:g}" for reward in case.rewards)


def code(values: list[Any]) -> str:
    """Values as inline code that cannot break a table."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    shown = "; ".join(text if len(text) <= 90 else text[:87] + "…" for text in texts)
    return "`` " + shown.replace("|", "\\|").replace("`", "ˋ") + " ``"


def plain(text: str) -> str:
    """Text that Markdown shows as it is; inside backticks it does that by itself, bars in a table excepted."""
    outside = [piece if index % 2 else piece.replace("<", "&lt;") for index, piece in enumerate(text.split("`"))]
    return "`".join(outside).replace("|", "\\|")


def example(info: RewardInfo) -> str:
    """A command that runs."""
    case = info.cases[0]
    body = {"task": {"reference": case.reference}, "rollouts": [{"completion": text} for text in case.rollouts]}
    body |= {"params": case.params} if case.params else {}
    return (
        "## Try it\n\n```bash\n"
        f"curl -s http://127.0.0.1:8000/v1/rewards/{info.name} -H 'Content-Type: application/json' \\\n"
        f"  --data-binary @- <<'END'\n{json.dumps(body, ensure_ascii=False)}\nEND\n```\n"
    )


def errors_page() -> str:
    """Problem types and verdict statuses."""
    problems = [
        (
            f"`{problem.slug}`",
            str(problem.status),
            "yes" if problem.retryable else "no",
            f"{problem.title}. {doc(problem)}",
            remedy(problem),
        )
        for problem in sorted(errors.PROBLEMS, key=lambda problem: (problem.status, problem.slug))
    ]
    statuses = [(f"`{status}`", STATUS_MEANINGS[status]) for status in get_args(contract.Status)]
    return "\n".join(
        [
            "# Problems and statuses\n",
            "A request that is refused gets an `application/problem+json` document (RFC 9457) whose `type` is",
            "`/problems/` and a slug of this table; the service has a page there that says the same. `instance` is the",
            "request id, `errors` point into the request.\n",
            table("## Problems", ("type", "HTTP status", "worth retrying", "meaning", "what to do"), problems),
            "A request that is accepted is answered 200 with a verdict for every rollout. A verdict has a number when",
            "and only when its status is `scored`.\n",
            table("## Statuses", ("status", "meaning"), statuses),
        ]
    )


def settings_page() -> str:
    """Every setting with its variable."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", f"`{default_of(name)}`", field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return "# Settings\n\nRead from the environment; the flags of `rewardsvc serve` override them.\n\n" + table(
        "", ("variable", "default", "meaning"), rows
    )


def default_of(name: str) -> str:
    """A default as it would be written in the environment."""
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "one per processor"
    value = field.default
    return ",".join(value) if isinstance(value, tuple) else "" if name == "api_keys" or value is None else str(value)


def metrics_page() -> str:
    """Every metric that `/metrics` shows."""
    families: list[Metric] = sorted(observe.REGISTRY.collect(), key=lambda family: family.name)
    labels = {"rewardsvc_verdicts": "reward, status, reason", "rewardsvc_cache_lookups": "outcome"}
    labels |= {"rewardsvc_workers_ended": "kind, why", "rewardsvc_refused_requests": "problem"}
    per_reward = ("queue_seconds", "run_seconds", "group_size", "all_equal_groups")
    rows = [
        (
            f"`{family.name}{'_total' if family.type == 'counter' else ''}`",
            family.type,
            labels.get(family.name, "reward" if family.name.removeprefix("rewardsvc_") in per_reward else ""),
            family.documentation,
        )
        for family in families
    ]
    return "# Metrics\n\nNo label ever holds text that a caller or a policy wrote.\n\n" + table(
        "", ("metric", "type", "labels", "meaning"), rows
    )


def with_table(readme: str, rewards: list[RewardInfo]) -> str:
    """The README with a fresh table of rewards."""
    before, _, rest = readme.partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    rows = [
        (
            f"[`{info.name}`](docs/rewards/{info.name}.md)",
            info.summary,
            type_of(info.reference),
            "group" if info.per_group else "rollout",
        )
        for info in rewards
    ]
    made = table("", ("reward", "what it judges", "`reference`", "judges each"), rows).strip()
    return f"{before}{TABLE_START}\n{made}\n{TABLE_END}{after}"


def table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table, or nothing when there are no rows."""
    if not rows:
        return ""
    lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
    return "\n".join([*([title, ""] if title else []), *lines, ""])


def remedy(problem: type[errors.Problem]) -> str:
    """The rest of a problem's docstring: what to do about it."""
    return " ".join((inspect.getdoc(problem) or "").partition("\n")[2].split())


def doc(thing: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
