"""Who waits for which verdict: groups, the flights that carry their rollouts, and the gate where they board.

Equal rollouts are computed once. At the gate each rollout gets a name (`cache.key`), which stands for everything that
its verdict may depend on; a verdict in the cache is handed out at once, a twin that is under way is joined, and only
what is left becomes a row for an executor. All this runs for every rollout of every group, hence the plain loops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw

from rewardsvc import observe
from rewardsvc.cache import Cache, key
from rewardsvc.contract import MAX_TEXT_BYTES, RewardInfo, Rollout, Verdict, text_of
from rewardsvc.errors import Problem
from rewardsvc.executors.work import Batch, Row
from rewardsvc.packing import encode, encode_stable

_SURELY_SHORT = MAX_TEXT_BYTES // 4  # characters that cannot make more than MAX_TEXT_BYTES in UTF-8
_copy = msgspec.structs.replace


class Group:
    """One group under way: its verdicts so far, and where it waits for the others."""

    __slots__ = ("done", "flights", "ids", "info", "joined", "left", "missing", "on_verdict", "verdicts")

    def __init__(self, info: RewardInfo, ids: list[str], gate: Gate) -> None:
        """`flights` carry the group's own rows; `joined` are (flights, index) of twins that other groups started."""
        self.info = info
        self.ids = ids
        self.verdicts: list[Verdict | None] = [None] * len(ids)
        self.missing = len(ids)
        self.flights = Flights(self, gate)
        self.joined: set[tuple[Flights, int]] = set()
        self.left = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_verdict: Callable[[Verdict], None] | None = None

    def settle(self, position: int, verdict: Verdict) -> None:
        """The verdict on one rollout."""
        verdict.id = self.ids[position]
        if verdict.reward is None and self.info.parts:
            verdict.parts = dict.fromkeys(self.info.parts)
        self.verdicts[position] = verdict
        self.missing -= 1
        if self.on_verdict is not None:
            self.on_verdict(verdict)

    def close_if_complete(self) -> None:
        """Wakes whoever waits when nothing is missing."""
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def refuse(self, problem: Problem) -> None:
        """The request is a mistake of the caller."""
        if not self.left and not self.done.done():
            self.leave()
            self.done.set_exception(problem)

    def expire(self) -> None:
        """The deadline: what is missing is a timeout, and nothing is waited for any more."""
        self.leave()
        for position, verdict in enumerate(self.verdicts):
            if verdict is None:
                self.settle(position, Verdict.not_scored("timeout", "deadline"))
        self.close_if_complete()

    def leave(self) -> None:
        """Gives up every row whose verdict has not come. The second time there is nothing to give up."""
        if self.left:
            return
        self.left = True
        if self.missing:
            self.flights.let_owner_go()
            for flights, index in self.joined:
                flights.let_go(index, self)
        self.joined.clear()
        del self.flights  # which know this group: nothing shall wait for the collector of circles

    def finished(self) -> list[Verdict]:
        """The verdicts in the order of the rollouts."""
        return [verdict for verdict in self.verdicts if verdict is not None]


class Flights:
    """The rows that one group started, with their names and everybody who waits for them."""

    __slots__ = ("_gate", "_names", "_owner", "_positions", "_twins", "_whole_name")

    def __init__(self, owner: Group, gate: Gate) -> None:
        self._owner = owner
        self._gate = gate
        self._names: list[bytes | None] = []
        self._positions: list[int | None] = []  # of the owner's rollouts; None once the owner does not wait
        self._twins: dict[int, list[tuple[Group, int]]] = {}
        self._whole_name: bytes | None = None

    def add(self, name: bytes | None, position: int) -> int:
        """A new row for the owner's rollout at `position`, which twins find by its name; the index of the row."""
        index = len(self._names)
        self._names.append(name)
        self._positions.append(position)
        if name is not None:
            self._gate.under_way[name] = (self, index)
        return index

    def name_whole(self, name: bytes) -> None:
        """Twins find all rows together by this name."""
        self._whole_name = name
        self._gate.under_way[name] = (self, 0)

    def join(self, index: int, group: Group, position: int) -> None:
        """One more rollout, of this group or of another one, waits for the row."""
        self._twins.setdefault(index, []).append((group, position))
        if group is not self._owner:
            group.joined.add((self, index))

    def let_owner_go(self) -> None:
        """The group that started these rows waits for none of them any more."""
        for index, position in enumerate(self._positions):
            if position is not None:
                self._positions[index] = None
                self.let_go(index, self._owner)

    def let_go(self, index: int, group: Group) -> None:
        """A twin waits no longer. A row that nobody waits for may never be judged, so no other twin may join it."""
        others = [twin for twin in self._twins.pop(index, ()) if twin[0] is not group]
        if others:
            self._twins[index] = others
        elif self._positions[index] is None:
            self._forget(self._names[index], index)
            self._forget(self._whole_name, 0)

    def _forget(self, name: bytes | None, index: int) -> None:
        """Twins no longer find this row; its name may stand for a newer one by now."""
        if name is not None and self._gate.under_way.get(name) == (self, index):
            del self._gate.under_way[name]

    def wanted(self, batch: Batch, index: int) -> bool:
        """Whether anybody still waits for this row."""
        return self._positions[index] is not None or index in self._twins

    def settled(self, batch: Batch, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        """New verdicts: kept in the cache, handed to everybody who waits."""
        self._keep(verdicts)
        owner, positions, twins = self._owner, self._positions, self._twins
        for index, verdict in verdicts:
            if index in twins:
                self._tell(twins.pop(index), verdict)
            position = positions[index]
            if position is not None:
                positions[index] = None
                owner.settle(position, verdict)
        owner.close_if_complete()

    def _tell(self, twins: list[tuple[Group, int]], verdict: Verdict) -> None:
        for group, position in twins:
            group.settle(position, _copy(verdict))
            if group is not self._owner:
                group.close_if_complete()

    def _keep(self, verdicts: Sequence[tuple[int, Verdict]]) -> None:
        names, put = self._names, self._gate.cache.put
        if self._whole_name is not None:
            self._forget(self._whole_name, 0)
            if len(verdicts) == len(names):
                put(self._whole_name, [verdict for _, verdict in sorted(verdicts, key=lambda row: row[0])])
        for index, verdict in verdicts:
            name = names[index]
            if name is not None:
                self._forget(name, index)
                put(name, (verdict,))

    def refused(self, batch: Batch, problem: Problem) -> None:
        """The request is a mistake of the caller, for everybody who made it."""
        for index, name in enumerate(self._names):
            self._forget(name, index)
        self._forget(self._whole_name, 0)
        twins = [group for waiting in self._twins.values() for group, _ in waiting]
        for group in dict.fromkeys([self._owner, *twins]):
            group.refuse(problem)


class Gate:
    """Where rollouts board: the cache, and the rows that are under way by name."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.under_way: dict[bytes, tuple[Flights, int]] = {}

    def board_each(self, group: Group, rollouts: Sequence[Rollout], context: bytes | None) -> list[Row]:
        """Each rollout for itself; the rows that are new. Without a `context` nothing is looked up or kept."""
        add, ids = group.flights.add, group.ids
        rows: list[Row] = []
        name = None
        for position, rollout in enumerate(rollouts):
            completion = rollout.completion
            if type(completion) is not str or len(completion) > _SURELY_SHORT:
                fault = _unusable(rollout)
                if fault is not None:
                    group.settle(position, Verdict.not_scored("bad_item", fault))
                    continue
            payload = encode_stable((completion, rollout.reference, rollout.metadata))
            if context is not None:
                name = key(context, payload)
                if self._meets(group, position, name):
                    continue
            rows.append((add(name, position), ids[position], Raw(payload)))
        if context is not None:
            observe.cache_missed(len(rows))
        return rows

    def _meets(self, group: Group, position: int, name: bytes) -> bool:
        """Whether the verdict is known, or its computation under way."""
        known = self.cache.get(name)
        if known is not None:
            observe.cache_hit(1)
            group.settle(position, known[0])
            return True
        twin = self.under_way.get(name)
        if twin is not None:
            observe.twin_joined(1)
            twin[0].join(twin[1], group, position)
        return twin is not None

    def board_whole(self, group: Group, rollouts: Sequence[Rollout], context: bytes | None) -> list[Row]:
        """A reward that compares rollouts judges the whole group at once, or none of it."""
        faults = [_unusable(rollout) for rollout in rollouts]
        if any(faults):
            for position, fault in enumerate(faults):
                group.settle(position, Verdict.not_scored("bad_item", fault or "bad_item_in_group"))
            return []
        payloads = [encode_stable((rollout.completion, rollout.reference, rollout.metadata)) for rollout in rollouts]
        if context is not None and payloads:
            name = key(context, encode([group.ids, payloads]))
            if self._meets_whole(group, name):
                return []
            observe.cache_missed(len(payloads))
            group.flights.name_whole(name)
        return [
            (group.flights.add(None, position), group.ids[position], Raw(payload))
            for position, payload in enumerate(payloads)
        ]

    def _meets_whole(self, group: Group, name: bytes) -> bool:
        """Whether the verdicts on a whole group are known, or their computation under way."""
        known, twin = self.cache.get(name), self.under_way.get(name)
        for position in range(len(group.ids)):
            if known is not None:
                group.settle(position, known[position])
            elif twin is not None:
                twin[0].join(position, group, position)
        if known is not None:
            observe.cache_hit(len(known))
        elif twin is not None:
            observe.twin_joined(len(group.ids))
        return known is not None or twin is not None


def _unusable(rollout: Rollout) -> str | None:
    """Why a rollout cannot be judged by any reward, as a reason slug."""
    text = text_of(rollout.completion)
    if text is None:
        return "no_assistant_turn"
    return "too_long" if is_too_long(text) else None


def is_too_long(text: str) -> bool:
    """Whether a text has more than 1 MiB in UTF-8."""
    return len(text) > _SURELY_SHORT and len(text.encode()) > MAX_TEXT_BYTES
