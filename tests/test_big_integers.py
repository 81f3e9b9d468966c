"""Integers beyond 64 bits, which msgpack lacks, reach a reward as they were sent."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardsvc.packing import big_integer, encode_stable
from tests.conftest import Service

BIG = 10**40 + 1


@given(
    st.recursive(
        st.integers(-(10**60), 10**60) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_every_value_survives_the_frames(value: object) -> None:
    assert msgspec.msgpack.decode(encode_stable(value), ext_hook=big_integer) == value


@pytest.mark.parametrize("reward", ["exact", "math"])
def test_a_reference_of_forty_digits_is_judged_exactly(service_with_plugins: Service, reward: str) -> None:
    verdicts = service_with_plugins.score(reward, [rf"\boxed{{{BIG}}}", rf"\boxed{{{BIG + 1}}}"], BIG)
    assert [verdict["reward"] for verdict in verdicts] == [1.0, 0.0]
