"""The pools over workers that are only played: who gets what, who is to blame, and when there are too many waiting."""

from __future__ import annotations

import asyncio
import time

import pytest

from rewardsvc.clock import now_ns
from rewardsvc.contract import Verdict
from rewardsvc.errors import Timeout
from rewardsvc.executors import io, wire
from rewardsvc.executors import pool as executors_pool
from rewardsvc.executors.cpu import CpuPool
from rewardsvc.executors.io import IoPool
from rewardsvc.executors.wire import Cell, Results
from tests.executors.fakes import FakeLink, FakeParent, batch_of, good


class TestCpuPool:
    """Workers that judge one shard after the other."""

    def pool(self, workers: int = 1) -> tuple[CpuPool, FakeParent]:
        parent = FakeParent()
        pool = CpuPool(parent, workers)  # type: ignore[arg-type]
        pool.refill()
        for link in parent.links:
            link.come_to_life()
        return pool, parent

    def test_a_late_frame_never_becomes_another_items_verdict(self) -> None:
        async def scene() -> None:
            pool, parent = self.pool()
            first, told_first = batch_of(1)
            second, told_second = batch_of(1)
            pool.submit(first)
            link = parent.links[0]
            old = link.sent[-1].number
            link.on_message(Results(old, good(0), done=True))
            pool.submit(second)
            link.on_message(Results(old, [(0, Verdict.scored(0.0, "late"))], done=True))
            assert told_second.told == []
            link.on_message(Results(link.sent[-1].number, good(0), done=True))
            assert (told_first.told, told_second.told) == ([(0, "good")], [(0, "good")])

        asyncio.run(scene())

    def test_results_after_a_kill_are_not_taken_for_the_next_run(self) -> None:
        async def scene() -> None:
            pool, parent = self.pool()
            batch, caller = batch_of(2)
            pool.submit(batch)
            link = parent.links[0]
            number = link.sent[-1].number
            link.cell.begin(0, now_ns())
            (worker,) = pool._workers
            worker._lose(worker.held, 0, Timeout("item_limit"), "item_limit")
            link.on_message(Results(number, good(0, 1), done=True))
            assert caller.told == [(0, "item_limit")]
            parent.links[1].come_to_life()
            assert [row[0] for row in parent.links[1].sent[-1].rows] == [1]

        asyncio.run(scene())

    def test_the_expected_wait_comes_back_to_zero_when_all_is_done(self) -> None:
        """A reward that turns out to be cheaper than it was thought must not leave a phantom behind."""

        async def scene() -> None:
            pool, parent = self.pool()
            link = parent.links[0]
            batches = [batch_of(16)[0] for _ in range(50)]
            for batch in batches:
                pool.submit(batch)
            assert pool.expected_wait() > 0.1
            while pool.expected_wait():
                order = link.sent[-1]
                link.on_message(Results(order.number, good(*(row[0] for row in order.rows)), done=True))
            order = link.sent[-1]
            link.on_message(Results(order.number, good(*(row[0] for row in order.rows)), done=True))
            assert pool.expected_wait() == 0
            assert all(batch.units == 0 for batch in batches)

        asyncio.run(scene())

    def test_the_expected_wait_counts_nothing_of_refused_condemned_and_unwanted_groups(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(executors_pool, "_LOOKS_PER_CLEARANCE", 1)

        async def scene() -> None:
            pool, _ = self.pool()
            refused, _ = batch_of(400)
            condemned, _ = batch_of(400)
            unwanted, caller = batch_of(400)
            for batch in (refused, condemned, unwanted):
                pool.submit(batch)
            (worker,) = pool._workers
            worker._rejected(worker.held, wire.Rejected(worker.held.number, [("", "no")]))
            assert worker.held.batch is condemned
            worker._lose(worker.held, Cell.PREPARING, Timeout("item_limit"), "item_limit")
            assert 0 < pool.expected_wait() <= 0.4
            caller.gone = set(range(400))
            pool._look()
            assert pool.expected_wait() == 0
            assert len(caller.told) == 400

        asyncio.run(scene())

    def test_a_shard_of_a_worker_that_ended_of_age_runs_elsewhere_without_blame(self) -> None:
        async def scene() -> None:
            pool, parent = self.pool()
            batch, caller = batch_of(3)
            pool.submit(batch)
            old = parent.links[0]
            old.alive, old.killed_because = False, "recycled"
            old.on_gone(wire.Exit(0))
            parent.links[1].come_to_life()
            assert len(parent.links[1].sent[-1].rows) == 3, "in company: nobody is a suspect"
            assert caller.told == []

        asyncio.run(scene())

    def test_a_worker_that_never_comes_to_life_is_replaced_with_growing_pauses(self) -> None:
        async def scene() -> None:
            parent = FakeParent()
            pool = CpuPool(parent, 1)  # type: ignore[arg-type]
            pool.refill()
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                if parent.links[-1].alive:
                    parent.links[-1].alive = False
                    parent.links[-1].on_gone(None)
                await asyncio.sleep(0.001)
            assert 3 <= len(parent.links) <= 8
            pool.close()

        asyncio.run(scene())

    def test_rows_behind_a_slow_one_go_to_another_worker(self) -> None:
        async def scene() -> None:
            pool, parent = self.pool(workers=2)
            batch, caller = batch_of(4)
            pool.submit(batch)
            busy, idle = sorted(parent.links, key=lambda link: not link.sent)
            assert not idle.sent
            busy.cell.begin(1, now_ns() - 100_000_000)
            pool._look()
            assert [row[0] for row in idle.sent[-1].rows] == [0, 2, 3]
            idle.on_message(Results(idle.sent[-1].number, good(0, 2, 3), done=True))
            busy.on_message(Results(busy.sent[-1].number, good(0, 1), done=True))
            assert sorted(caller.told) == [(index, "good") for index in range(4)]

        asyncio.run(scene())

    def test_an_item_that_is_killed_counts_with_the_time_that_it_took(self) -> None:
        async def scene() -> None:
            pool, parent = self.pool()
            batch, caller = batch_of(3)
            pool.submit(batch)
            parent.links[0].cell.begin(0, now_ns() - 2 * 10**9)
            pool._look()
            assert caller.told == [(0, "item_limit")]
            assert pool.cost("exact") > 0.5
            parent.links[1].come_to_life()
            assert len(parent.links[1].sent[-1].rows) == 1, "what is expensive travels alone"
            for _ in range(40):
                pool.learn_cost("exact", 1e-5, 16)
            assert pool.cost("exact") < 1e-3, "one hang is forgotten"

        asyncio.run(scene())

    def test_the_expected_wait_counts_how_long_workers_are_taken_not_only_how_long_they_judge(self) -> None:
        """A front that is busy hears late that a worker is free; what waits has to wait for that too."""

        async def scene() -> None:
            pool, parent = self.pool()
            for _ in range(20):
                pool.submit(batch_of(1)[0])
                time.sleep(0.005)
                order = parent.links[0].sent[-1]
                parent.links[0].on_message(Results(order.number, good(0), done=True))
            for _ in range(101):
                pool.submit(batch_of(1)[0])
            assert pool.cost("exact") < 0.001
            assert pool.expected_wait() > 0.4

        asyncio.run(scene())

    def test_a_front_that_is_busy_with_callers_hears_a_worker_all_the_same(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scene() -> None:
            pool, parent = self.pool()
            (link,) = parent.links
            for _ in range(2):
                pool.submit(batch_of(1)[0])
            order = link.sent[-1]
            monkeypatch.setattr(link, "drain", lambda: link.on_message(Results(order.number, good(0), done=True)))
            pool.attend()
            assert len(link.sent) == 2, "without a turn of the event loop"
            monkeypatch.setattr(link, "drain", lambda: pytest.fail("there is nothing to hand out"))
            time.sleep(0.002)
            pool.attend()

        asyncio.run(scene())


class TestIoPool:
    """One process that has many items under way."""

    def pool(self) -> tuple[IoPool, FakeParent]:
        parent = FakeParent()
        pool = IoPool(parent)  # type: ignore[arg-type]
        pool.refill()
        return pool, parent

    def living(self) -> tuple[IoPool, FakeParent, FakeLink]:
        pool, parent = self.pool()
        parent.links[0].come_to_life()
        return pool, parent, parent.links[0]

    def answer(self, link: FakeLink, number: int) -> None:
        order = next(order for order in link.sent if order.number == number)
        link.on_message(Results(number, good(*(row[0] for row in order.rows)), done=True))

    def test_groups_are_not_kept_when_their_callers_go_while_no_process_can_be_started(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(executors_pool, "_LOOKS_PER_CLEARANCE", 1)

        async def scene() -> None:
            pool, _ = self.pool()
            batches = [batch_of(2, kind="io") for _ in range(50)]
            for batch, caller in batches:
                pool.submit(batch)
                caller.gone = {0, 1}
            await asyncio.sleep(0.1)
            assert [caller.told for _, caller in batches] == [[(0, "abandoned"), (1, "abandoned")]] * 50
            assert not any(pool._lines.values())

        asyncio.run(scene())

    def test_a_process_that_is_missing_for_long_is_missed_and_waited_for_as_long_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(io, "_MISSED_SECONDS", 0.05)

        async def scene() -> None:
            pool, parent = self.pool()
            info = batch_of(1, kind="io")[0].info
            assert not pool.ready, "it never was there"
            parent.links[0].come_to_life()
            assert (pool.ready, pool.expected_wait(info)) == (True, 0)
            parent.links[0].on_gone(None)
            assert pool.ready, "it will be back in a moment"
            await asyncio.sleep(0.1)
            assert not pool.ready
            assert 0.1 <= pool.expected_wait(info) < 5
            parent.links[1].come_to_life()
            assert pool.ready

        asyncio.run(scene())

    def test_the_expected_wait_is_what_waits_of_the_same_reward(self) -> None:
        async def scene() -> None:
            pool, _, link = self.living()
            pool.learn_cost("slow", 1.0, 64)
            slow, quick = batch_of(12, name="slow", kind="io")[0], batch_of(1, name="quick", kind="io")[0]
            pool.submit(slow)
            assert 4.5 < pool.expected_wait(slow.info) <= 5, "twelve less the two that have started, two at a time"
            assert pool.expected_wait(quick.info) == 0
            slow.give_up()
            link.on_message(wire.Rejected(1, [("", "no")]))

        asyncio.run(scene())

    def test_a_refused_group_leaves_nothing_that_waits(self) -> None:
        async def scene() -> None:
            pool, _, link = self.living()
            batch, caller = batch_of(12, kind="io")
            pool.submit(batch)
            link.on_message(wire.Rejected(link.sent[0].number, [("", "no")]))
            assert caller.problem is not None
            assert pool.expected_wait(batch.info) == 0
            assert not any(pool._lines.values())

        asyncio.run(scene())

    def test_an_old_process_has_a_successor_and_finishes_what_it_has(self) -> None:
        async def scene() -> None:
            pool, parent, old = self.living()
            first, told_first = batch_of(1, name="first", kind="io")
            pool.submit(first)
            old.cell.grow_old()
            for _ in range(3):
                pool._look()
            assert len(parent.links) == 2, "one successor"
            between, told_between = batch_of(1, name="between", kind="io")
            pool.submit(between)
            assert len(old.sent) == 2, "until it is there, the old one works on"
            new = parent.links[1]
            new.come_to_life()
            second, told_second = batch_of(1, name="second", kind="io")
            pool.submit(second)
            assert (len(old.sent), len(new.sent)) == (2, 1)
            self.answer(old, old.sent[1].number)
            self.answer(new, new.sent[0].number)
            self.answer(old, old.sent[0].number)
            assert told_first.told == told_between.told == told_second.told == [(0, "good")]
            old.alive, old.killed_because = False, "recycled"
            old.on_gone(wire.Exit(0))
            pool._look()
            assert (len(pool.links), len(parent.links)) == (1, 2)

        asyncio.run(scene())

    def test_what_an_old_process_loses_runs_again_in_its_successor(self) -> None:
        async def scene() -> None:
            pool, parent, old = self.living()
            batch, caller = batch_of(2, kind="io")
            pool.submit(batch)
            old.cell.grow_old()
            pool._look()
            new = parent.links[1]
            new.come_to_life()
            old.cell.begin(wire.io_mark(old.sent[0].number), now_ns())
            old.on_gone(wire.Exit(1))
            assert caller.told == [(0, "exited")]
            assert [order.rows[0][0] for order in new.sent] == [1]
            assert len(parent.links) == 2

        asyncio.run(scene())

    def test_what_was_lost_together_runs_together_once_more_and_then_one_after_the_other(self) -> None:
        async def scene() -> None:
            pool, parent, first = self.living()
            for name in ("one", "two"):
                pool.submit(batch_of(1, name=name, kind="io")[0])
            first.on_gone(wire.Exit(1))
            second = parent.links[1]
            second.come_to_life()
            assert [order.reward for order in second.sent] == ["one", "two"]
            second.on_gone(wire.Exit(1))
            third = parent.links[2]
            third.come_to_life()
            pool._look()
            assert [order.reward for order in third.sent] == ["one"]
            self.answer(third, third.sent[0].number)
            assert [order.reward for order in third.sent] == ["one", "two"]

        asyncio.run(scene())

    def test_the_third_loss_is_put_down_to_the_item_that_was_alone(self) -> None:
        async def scene() -> None:
            pool, parent, _ = self.living()
            batch, caller = batch_of(2, kind="io")
            pool.submit(batch)
            for lost in range(3):
                parent.links[lost].on_gone(wire.Exit(1))
                parent.links[lost + 1].come_to_life()
            assert caller.told == [(0, "exited")]
            self.answer(parent.links[3], parent.links[3].sent[0].number)
            assert caller.told == [(0, "exited"), (1, "good")]

        asyncio.run(scene())
