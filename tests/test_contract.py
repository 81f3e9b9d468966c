"""Where a request is wrong, as a caller is told it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from rewardsvc.contract import Model, Rollout, ScoreRequest, first_error


class Nested(Model):
    """Structs in every container that `Params` may have."""

    by_name: dict[str, Rollout] = {}
    several: list[Rollout] | None = None


def place_of(document: Any, model: type[Model]) -> tuple[str, str]:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(document, model)
    return first_error(caught.value, "/params", model)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"several": [{"completion": "", "idd": 1}]}, "/params/several/0/idd"),
        ({"by_name": {"a": {"completion": "", "idd": 1}}}, "/params/by_name"),  # msgspec does not say which
        ({"by_name": {"a": {"completion": 1}}}, "/params/by_name/completion"),
    ],
)
def test_places_inside_containers_are_pointers(document: Any, place: str) -> None:
    pointer, message = place_of(document, Nested)
    assert pointer == place
    assert "idd" not in str(document) or message == "Unknown field `idd`; did you mean `id`?"


def test_a_field_name_without_end_is_cut_in_the_message() -> None:
    _, message = place_of({"rollouts": [], "x" * 100_000: 1}, ScoreRequest)
    assert len(message) < 200
    assert message.endswith("there are deadline_ms, params, rollouts, task")


def test_without_a_model_the_field_is_still_pointed_at() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"rollout": []}, ScoreRequest)
    assert first_error(caught.value) == ("/rollout", "Unknown field `rollout`")


class Worded(Model):
    """Words behind an option and inside a list."""

    mode: Literal["fast", "exact"] | None = None
    marks: tuple[Literal["box", "tag"], ...] = ()


@pytest.mark.parametrize(
    ("document", "place", "words"),
    [({"mode": "fats"}, "/params/mode", "`exact`, `fast`"), ({"marks": ["bx"]}, "/params/marks/0", "`box`, `tag`")],
)
def test_a_word_that_is_none_of_those_there_are_is_told_them(document: Any, place: str, words: str) -> None:
    pointer, message = place_of(document, Worded)
    assert pointer == place
    assert message.endswith(f"; there are {words}")
