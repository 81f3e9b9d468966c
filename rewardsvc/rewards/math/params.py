"""What a caller of `math` may ask for: a preset, changes to its policy, and where and how the answer is looked for.

A field of the policy that is left out is what the preset says, hence the derived optional fields: there is one list of
policies, in `policy`, and one list of presets beside it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, Optional, get_args, get_type_hints

import msgspec
from msgspec import Meta, structs

from rewardsvc.contract import Model
from rewardsvc.rewards.math import policy
from rewardsvc.rewards.math.answers import STYLES, Region, SeveralBoxes, Style


def _optional_fields() -> list[tuple[str, Any, Any]]:
    """Each field of the policy with null as its default, and the house's own default in its description."""
    hints = get_type_hints(policy.Policy, include_extras=True)
    return [_optional(field, hints[field.name]) for field in structs.fields(policy.Policy)]


def _optional(field: structs.FieldInfo, hint: Any) -> tuple[str, Any, Any]:
    kind, meta = get_args(hint)
    bounds = {name: getattr(meta, name) for name in ("ge", "le") if getattr(meta, name) is not None}
    bounded = Annotated[kind, Meta(**bounds)] if bounds else kind
    default = msgspec.json.encode(field.default).decode()
    described = Meta(description=f"{meta.description} Preset `house`: `{default}`.")
    return field.name, Annotated[Optional[bounded], described], None  # noqa: UP045 - built at run time


class _Where(Model, kw_only=True):
    """Where and how the answer is looked for, and what becomes of it."""

    preset: Annotated[
        policy.Preset, Meta(description="The policy to start from, named after the grader it imitates.")
    ] = "house"
    styles: Annotated[tuple[Style, ...], Meta(min_length=1, description="The marks of a final answer that count.")] = (
        STYLES
    )
    region: Annotated[Region, Meta(description="Where in the completion the answer may stand.")] = "after_reasoning"
    several_boxes: Annotated[
        SeveralBoxes,
        Meta(description="`join` boxes that hold the parts of one answer, take the `last`, or demand `all_equal`."),
    ] = "join"
    credit: Annotated[
        Literal["binary", "parts", "tree_edit"],
        Meta(
            description="`binary`: right or wrong; `parts`: the share of right parts of an answer that has several; "
            "`tree_edit`: a wrong formula earns by how near its tree is (PHYBench EED)."
        ),
    ] = "binary"
    second_tier: Annotated[
        bool, Meta(description="What the fast tier leaves undecided goes to math-verify, under a budget.")
    ] = True
    undecided: Annotated[
        Literal["unscored", "zero"],
        Meta(description="What an answer gets that no tier could decide: no number, or 0."),
    ] = "unscored"


Params = msgspec.defstruct(
    "Params",
    _optional_fields(),
    bases=(_Where,),
    module=__name__,
    kw_only=True,
    forbid_unknown_fields=True,
    namespace={"__doc__": "A preset, changes to it, and where the answer is looked for."},
)


class Asked(NamedTuple):
    """A preset with the caller's changes, as a key."""

    preset: policy.Preset
    changes: tuple[tuple[str, Any], ...]

    def policy(self) -> policy.Policy:
        """The policy that this makes."""
        return _made(self)


def asked(params: Any) -> Asked:
    """The part of the params by which answers are compared."""
    return _asked(params.preset, structs.astuple(params)[_FIRST:])


@lru_cache(maxsize=256)
def _made(asked: Asked) -> policy.Policy:
    return policy.preset(asked.preset, **dict(asked.changes))


def echoed(params: Any) -> dict[str, Any]:
    """What a verdict says about how it was reached: the preset, and all that is not as it would be by itself."""
    changed = {name: value for name, value in structs.asdict(params).items() if value != _DEFAULTS[name]}
    return {"preset": params.preset} | changed


@lru_cache(maxsize=256)
def _asked(preset: policy.Preset, values: tuple[Any, ...]) -> Asked:
    return Asked(preset, tuple((name, value) for name, value in zip(_NAMES, values, strict=True) if value is not None))


_DEFAULTS = {field.name: field.default for field in structs.fields(Params)}
_NAMES = tuple(field.name for field in structs.fields(policy.Policy))
_FIRST = len(structs.fields(_Where))  # the policy's fields come after those of the base
