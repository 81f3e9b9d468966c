"""Equations, inequalities and chains of them, against one another and against the values that they name.

An equation that names a value (`x = 5`) is that value; a chain must hold link by link. Whether two equations in
several names have the same solutions is asked of `equations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from rewardsvc.rewards.math.equations import same_relation, sides, substituted
from rewardsvc.rewards.math.grounds import Comparison, all_of
from rewardsvc.rewards.math.identity import Outcome, approximate
from rewardsvc.rewards.math.members import same_members
from rewardsvc.rewards.math.naming import argument_names, assignments_of, is_label, shared_value, stands_for_value
from rewardsvc.rewards.math.pairing import same_assignments
from rewardsvc.rewards.math.phrases import FALSE_CHAIN, same_texts
from rewardsvc.rewards.math.quantities import half_unit, unbounded
from rewardsvc.rewards.math.residues import names_of
from rewardsvc.rewards.math.restating import tasks
from rewardsvc.rewards.math.sets import SETS, as_sets
from rewardsvc.rewards.math.values import ZERO, Formula, Interval, Listing, Relation, SetOf, System, Text, Tuple, Value


def same_relations(by: Comparison, gold: Value, answer: Value) -> Outcome:
    """Two relations, or a relation and the value that it may give a name."""
    if not isinstance(gold, Relation) or not isinstance(answer, Relation):
        return _one_relation(by, gold, answer)
    if _other_statement(by, gold, answer):
        return "undecided"
    plain_gold = _reduced(by, gold, trusted=True)
    plain_answer = _reduced(by, answer)
    if plain_answer is None or plain_gold is None:
        return "not_equal"
    if not isinstance(plain_gold, Relation) or not isinstance(plain_answer, Relation):
        return by.compare(plain_gold, plain_answer)
    if (
        set(plain_gold.signs) | set(plain_answer.signs) <= {"=", "~"}
        and len(plain_gold.signs) == len(plain_answer.signs) == 1
    ):
        return _equations(by, plain_gold, plain_answer)
    return _inequalities(by, plain_gold, plain_answer)


def _other_statement(by: Comparison, gold: Relation, answer: Relation) -> bool:
    """Two chains of constants that may both be true: the same value does not make them the same statement."""
    chains = (gold, answer)
    if not all(set(chain.signs) <= {"=", "~"} and _constant_link(by, chain) for chain in chains):
        return False
    other = gold.sides != answer.sides if len(gold.sides) == len(answer.sides) else gold.sides[0] != answer.sides[0]
    return other and _links_hold(by, _links(answer))


def _one_relation(by: Comparison, gold: Value, answer: Value) -> Outcome:
    relation, other = (gold, answer) if isinstance(gold, Relation) else (answer, gold)
    assert isinstance(relation, Relation)
    if isinstance(other, (*SETS, SetOf)):
        outcome = as_sets(by, gold, answer)
        if outcome is not None:
            return outcome
    if relation.signs == ("in",):
        return _member(by, gold, answer, relation)
    bare = _unwrapped(by, relation, trusted=relation is gold)
    if bare is None and relation is answer and _asked_sum(relation) and _is_nonzero_constant(gold):
        return by.compare(gold, relation.sides[1])
    if bare is None:
        return _not_unwrapped(by, relation, gold, answer)
    if isinstance(other, Listing | Tuple) and isinstance(bare, Formula) and is_label(relation.sides[0]):
        return "not_equal" if isinstance(other, Tuple) else _pair(by, gold, answer, relation, bare)
    return _pair(by, gold, answer, relation, bare)


def _pair(by: Comparison, gold: Value, answer: Value, relation: Relation, bare: Value) -> Outcome:
    return by.compare(bare, answer) if gold is relation else by.compare(gold, bare)


def _not_unwrapped(by: Comparison, relation: Relation, gold: Value, answer: Value) -> Outcome:
    if isinstance(gold, Text) or isinstance(answer, Text):
        return same_texts(by, gold, answer)
    interval = _tuple_as_interval(by, relation, answer if gold is relation else gold)
    if interval is not None:
        return interval
    other = answer if gold is relation else gold
    if isinstance(other, Listing | System):
        return as_sets(by, gold, answer) or same_members(by, _listed(gold), _listed(answer))
    return "not_equal"


def _tuple_as_interval(by: Comparison, relation: Relation, other: Value) -> Outcome | None:
    if not isinstance(other, Tuple) or len(other.items) != 2 or by.policy.interval_as_chain == "never":
        return None
    low, high = other.items
    if not isinstance(low, Formula) or not isinstance(high, Formula):
        return None
    closed = other.brackets == "[]"
    return as_sets(by, relation, Interval(low.expr, high.expr, closed, closed))


def _member(by: Comparison, gold: Value, answer: Value, relation: Relation) -> Outcome:
    return _pair(by, gold, answer, relation, relation.sides[1])


def _unwrapped(by: Comparison, relation: Relation, trusted: bool) -> Value | None:
    """The value that an equation gives a name, or that a chain of constants ends in; None if it is neither."""
    if not by.policy.unwrap or not set(relation.signs) <= {"=", "~"}:
        return None
    reduced = _reduced(by, relation, trusted)
    if reduced is None:
        return FALSE_CHAIN
    if isinstance(reduced, Listing):
        return shared_value(reduced)
    if not isinstance(reduced, Relation):
        return reduced
    if len(reduced.signs) > 1 or not stands_for_value(reduced.sides[0]):
        last = reduced.sides[-1]
        if isinstance(last, Formula) and last.expr.op == "sym" and is_label(last) and not is_label(reduced.sides[0]):
            return reduced.sides[0] if len(reduced.sides) == 2 else None
        return None
    return reduced.sides[1]


def _reduced(by: Comparison, relation: Relation, trusted: bool = False) -> Value | None:
    """A chain of equations as one equation or value; None when a link of it is false, unless it is trusted."""
    if not set(relation.signs) <= {"=", "~"}:
        return relation
    names = [side for side in relation.sides if is_label(side)]
    labels = names or [side for side in relation.sides if tasks(side)]
    values = [(sign, side) for sign, side in _links(relation) if not stands_for_value(side)]
    if len(relation.signs) == 1 and (labels or not _constant_link(by, relation)):
        return relation
    last = values[-1][1] if values else relation.sides[-1]
    if not trusted and by.policy.chains == "every_link" and not _links_hold(by, values):
        by.flag("chain_with_false_link")
        by.reason = "chain_with_false_link"
        return None
    exact_values = [side for sign, side in values if sign == "="]
    last = exact_values[-1] if exact_values else last
    if len(labels) > 1 and values:
        return Listing(tuple(Relation((label, last), ("=",)) for label in labels))
    if labels:
        return Relation((labels[0], last), ("=",))
    return last if _constants(by, values) else relation


def _constant_link(by: Comparison, relation: Relation) -> bool:
    return all(isinstance(side, Formula) and not names_of(side.expr) for side in relation.sides)


def _constants(by: Comparison, values: Sequence[tuple[str, Value]]) -> bool:
    return all(isinstance(side, Formula) and not names_of(side.expr) for _, side in values) or len(values) > 2


def _links_hold(by: Comparison, values: Sequence[tuple[str, Value]]) -> bool:
    """False when a link is shown to be wrong; one that nobody can show is remembered in `doubtful`."""
    for (_, before), (sign, after) in pairwise(values):
        if sign == "~":
            if isinstance(before, Formula) and isinstance(after, Formula) and not _near(by, before, after):
                return False
            continue
        outcome = by.quiet(before, after)
        if outcome == "not_equal":
            return False
        by.doubtful = by.doubtful or outcome == "undecided"
    return True


def _near(by: Comparison, before: Formula, after: Formula) -> bool:
    left, right = approximate(before.expr, by.budget), approximate(after.expr, by.budget)
    if left is None or right is None:
        return True
    return abs(left - right) <= (2 * half_unit(after.places) if after.places is not None else 1)


def _equations(by: Comparison, gold: Relation, answer: Relation) -> Outcome:
    if is_label(gold.sides[0]) and is_label(answer.sides[0]):
        outcome = _named(by, gold, answer)
        if outcome is not None:
            return outcome
    if not all(isinstance(side, Formula) and not side.unit for side in (*gold.sides, *answer.sides)):
        first, second = assignments_of(gold), assignments_of(answer)
        if first and second:
            return same_assignments(by, first, second)
        if by.compare(gold.sides[0], answer.sides[0]) != "equal":
            return "undecided"
        return by.compare(gold.sides[1], answer.sides[1])
    nodes = [side.expr for side in (*gold.sides, *answer.sides) if isinstance(side, Formula)]
    if any(map(unbounded, nodes)):
        return "not_equal"
    return same_relation(sides(nodes[0], nodes[1], "="), sides(nodes[2], nodes[3], "="), by.budget)


def _named(by: Comparison, gold: Relation, answer: Relation) -> Outcome | None:
    """Two named values: the same name, or the same function of another variable."""
    first, second = gold.sides[0], answer.sides[0]
    if first == second or (
        isinstance(first, Text) and isinstance(second, Text) and first.words.lower() == second.words.lower()
    ):
        return by.compare(gold.sides[1], answer.sides[1])
    if not isinstance(first, Formula) or not isinstance(second, Formula):
        return None
    if first.expr.op == second.expr.op == "call" and first.expr.value == second.expr.value and by.policy.rename:
        names = argument_names(first.expr, second.expr)
        right = answer.sides[1]
        if names and isinstance(right, Formula):
            return by.compare(gold.sides[1], replace(right, expr=substituted(right.expr, names)))
    return None


def _inequalities(by: Comparison, gold: Relation, answer: Relation) -> Outcome:
    outcome = as_sets(by, gold, answer)
    if outcome is not None:
        return outcome
    if len(gold.signs) == len(answer.signs) == 1 and gold.signs[0] in "<=>=!=" and answer.signs[0] in "<=>=!=":
        nodes = [side.expr for side in (*gold.sides, *answer.sides) if isinstance(side, Formula)]
        if len(nodes) == 4 and not any(map(unbounded, nodes)):
            return same_relation(
                sides(nodes[0], nodes[1], gold.signs[0]), sides(nodes[2], nodes[3], answer.signs[0]), by.budget
            )
    if len(gold.sides) == len(answer.sides):
        for candidate in (answer, _mirrored(answer)):
            if candidate is not None and candidate.signs == gold.signs:
                return all_of(
                    [by.compare(left, right) for left, right in zip(gold.sides, candidate.sides, strict=True)]
                )
    return "undecided" if gold.signs == answer.signs else "not_equal"


def _links(relation: Relation) -> list[tuple[str, Value]]:
    """The members of a chain, each with the sign before it."""
    return list(zip(("=", *relation.signs), relation.sides, strict=True))


def _is_nonzero_constant(side: Value) -> bool:
    return isinstance(side, Formula) and side.expr != ZERO and not names_of(side.expr)


def _asked_sum(relation: Relation) -> bool:
    """`m + n = 42`, with a product or quotient of names as well: what a question asks for in names of its own."""
    side, value = relation.sides[0], relation.sides[-1]
    if relation.signs != ("=",) or not isinstance(side, Formula) or side.unit or not _is_nonzero_constant(value):
        return False
    return side.expr.op in ("add", "mul", "div") and all(part.op == "sym" for part in side.expr.args)


def _listed(value: Value) -> Value:
    return Listing((value,)) if isinstance(value, Relation) else value


def _mirrored(relation: Relation) -> Relation | None:
    signs = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!=", "~": "~"}
    if not all(sign in signs for sign in relation.signs):
        return None
    return Relation(relation.sides[::-1], tuple(signs[sign] for sign in reversed(relation.signs)))
