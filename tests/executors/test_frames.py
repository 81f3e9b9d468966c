"""The pieces below the executors, by themselves: frames, the shared cell, batches; and frames that come too late."""

from __future__ import annotations

import os
import socket

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsvc.clock import now_ns
from rewardsvc.contract import Verdict
from rewardsvc.errors import Crashed, Timeout, WrongShape
from rewardsvc.executors import wire
from rewardsvc.executors.wire import Cell, Connection, FrameReader, FrameTooLong, Ready
from rewardsvc.executors.work import MAX_ATTEMPTS, Row, Shard
from rewardsvc.packing import encode
from tests.executors.fakes import batch_of, good


class TestFrames:
    def test_a_frame_fed_byte_by_byte_comes_out_whole(self) -> None:
        reader = FrameReader()
        data = bytes(wire.frame(Ready(7)))
        assert [reader.feed(data[i : i + 1]) for i in range(len(data) - 1)] == [[]] * (len(data) - 1)
        (body,) = reader.feed(data[-1:])
        assert wire.decode_from_worker(body) == Ready(7)

    def test_several_frames_in_one_chunk_come_out_in_order(self) -> None:
        reader = FrameReader()
        data = b"".join(wire.frame(Ready(number)) for number in range(5))
        bodies = [*reader.feed(data + data[:3]), *reader.feed(data[3:])]
        assert [wire.decode_from_worker(body).pid for body in bodies] == [0, 1, 2, 3, 4] * 2

    @given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 400), max_size=40))
    def test_however_a_stream_is_cut_the_same_frames_come_out(self, bodies: list[bytes], cuts: list[int]) -> None:
        stream = b"".join(len(body).to_bytes(4, "little") + body for body in bodies)
        reader, got = FrameReader(), []
        for cut in [*cuts, len(stream)]:
            chunk, stream = stream[:cut], stream[cut:]
            got += [bytes(body) for body in reader.feed(chunk)]
        assert got == bodies

    @pytest.mark.parametrize("before", [b"", bytes(wire.frame(Ready(1)))])
    def test_a_length_over_the_limit_is_an_error_at_once(self, before: bytes) -> None:
        with pytest.raises(FrameTooLong):
            FrameReader().feed(before + (wire.MAX_FRAME + 1).to_bytes(4, "little"))

    def test_a_length_over_the_limit_that_comes_in_pieces_is_an_error_too(self) -> None:
        reader = FrameReader()
        head = (wire.MAX_FRAME + 1).to_bytes(4, "little")
        assert reader.feed(head[:2]) == []
        with pytest.raises(FrameTooLong):
            reader.feed(head[2:])

    @settings(deadline=None, max_examples=30)
    @given(st.lists(st.sampled_from([0, 1, 100, 262_140, 262_144, 700_000]), max_size=6), st.booleans())
    def test_the_blocking_end_gets_every_frame_of_whatever_length(self, sizes: list[int], at_once: bool) -> None:
        ours, theirs = socket.socketpair()
        frames = [bytes([number]) * size for number, size in enumerate(sizes, 1)]
        stream = b"".join(len(body).to_bytes(4, "little") + body for body in frames)
        sender = os.fork()
        if sender == 0:
            step = len(stream) if at_once else 50_001
            for start in range(0, len(stream), max(1, step)):
                theirs.sendall(stream[start : start + step])
            os._exit(0)
        theirs.close()
        connection = Connection(ours)
        got = []
        while (body := connection.receive()) is not None:
            got.append(bytes(body))
        os.waitpid(sender, 0)
        ours.close()
        assert got == frames

    def test_a_stream_that_ends_inside_a_frame_is_over(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"\x10\x00\x00\x00abc")
            theirs.shutdown(socket.SHUT_WR)
            assert Connection(ours).receive() is None

    @pytest.mark.timeout(10)
    @pytest.mark.parametrize("start", [b"", b"\x10", b"\x10\x00\x00", b"\x10\x00\x00\x00ab"])
    def test_a_stream_that_ends_anywhere_in_a_frame_with_descriptors_is_over(self, start: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            theirs.sendall(start)
            theirs.close()
            assert Connection(ours).receive_with_descriptors(2) is None

    def test_descriptors_arrive_and_are_not_inherited(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            wire.send_with_descriptors(theirs, Ready(3), [theirs.fileno(), ours.fileno()])
            received = Connection(ours).receive_with_descriptors(2)
            assert received is not None
            body, descriptors = received
            assert wire.decode_from_worker(body) == Ready(3)
            assert len(descriptors) == 2
            assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
            for descriptor in descriptors:
                os.close(descriptor)


class TestCell:
    def test_two_ends_see_the_same_page(self) -> None:
        descriptor = Cell.allocate()
        ours, theirs = Cell(os.dup(descriptor)), Cell(descriptor)
        assert ours.current() is None
        now = now_ns()
        theirs.begin(4095, now)
        assert ours.current() == (4095, now // 1000 * 1000)
        theirs.rest()
        assert ours.current() is None
        assert theirs.begin(0, now) != 9
        ours.call_off(9)
        assert theirs.begin(1, now) == 9
        theirs.weigh(123)
        assert (ours.weight, ours.left) == (123, False)
        theirs.leave()
        assert ours.left
        ours.close()
        theirs.close()

    @given(st.integers(0, 0xFFFF), st.integers(1000, 2**48 * 1000 - 1))
    def test_index_and_time_survive_the_packing(self, index: int, now: int) -> None:
        cell = Cell(Cell.allocate())
        cell.begin(index, now)
        assert cell.current() == (index, now // 1000 * 1000)
        cell.close()

    def test_a_worker_cannot_cut_the_page_off_under_the_front(self) -> None:
        descriptor = Cell.allocate()
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)

    @given(st.integers(1, 10**9))
    def test_the_marks_of_an_io_worker_name_their_order(self, number: int) -> None:
        mark, preparing = wire.io_mark(number), wire.io_mark(number, preparing=True)
        assert wire.is_mark_of(mark, number)
        assert wire.is_mark_of(preparing, number)
        assert not wire.is_mark_of(mark, number + 1)
        assert not wire.is_mark_of(None, number)
        assert (wire.is_preparing(mark), wire.is_preparing(preparing), wire.is_preparing(None)) == (False, True, False)
        assert max(mark, preparing) < Cell.PREPARING


class TestBatch:
    def test_rows_are_handed_out_in_order_and_once(self) -> None:
        batch, _ = batch_of(5)
        taken = [batch.next_units(2) for _ in range(3)]
        assert [(units, [row[0] for row in rows or []]) for units, rows in taken] == [
            (2, [0, 1]),
            (2, [2, 3]),
            (1, [4]),
        ]
        assert batch.units == 0
        assert batch.next_units(2) == (0, None)

    def test_a_second_verdict_on_a_row_changes_nothing(self) -> None:
        batch, caller = batch_of(2)
        batch.settle(good(0))
        batch.fail(batch.rows[:1], Timeout("late"))
        batch.settle(good(0, 0))
        assert caller.told == [(0, "good")]

    def test_two_verdicts_on_a_row_in_one_frame_count_once(self) -> None:
        batch, caller = batch_of(2)
        batch.settle([*good(1), (1, Verdict.scored(0.0, "other"))])
        assert caller.told == [(1, "good")]

    def test_verdicts_on_rows_that_there_are_not_are_dropped(self) -> None:
        batch, caller = batch_of(2)
        batch.settle(good(2, -1, 99))
        assert (caller.told, caller.calls) == ([], 0)

    def test_rows_put_back_run_first_in_their_order(self) -> None:
        batch, _ = batch_of(6)
        _, rows = batch.next_units(3)
        assert batch.put_back(rows or []) == 3
        assert [row[0] for row in batch.next_units(6)[1] or []] == [0, 1, 2, 3, 4, 5]

    def test_rows_that_have_a_verdict_are_not_put_back(self) -> None:
        batch, _ = batch_of(3)
        _, rows = batch.next_units(3)
        batch.settle(good(0, 2))
        assert batch.put_back(rows or []) == 1
        assert [row[0] for row in batch.next_units(3)[1] or []] == [1]

    def test_suspects_run_alone_and_fail_in_the_end_while_the_others_do_not_wait(self) -> None:
        batch, caller = batch_of(4)
        _, rows = batch.next_units(2)
        fault = Crashed("broken_stream")
        assert batch.put_back(rows or [], fault) == 2
        for attempt in range(2, MAX_ATTEMPTS + 1):
            _, alone = batch.next_units(10)
            assert [row[0] for row in alone or []] == [0], "a suspect runs alone"
            batch.put_back(alone or [], fault)
            assert caller.told == ([] if attempt < MAX_ATTEMPTS else [(0, "broken_stream")])
        assert [row[0] for row in batch.next_units(10)[1] or []] == [1]
        batch.settle(good(1))
        assert [row[0] for row in batch.next_units(10)[1] or []] == [2, 3]

    def test_blameless_losses_are_not_counted(self) -> None:
        batch, caller = batch_of(2)
        for _ in range(10 * MAX_ATTEMPTS):
            _, rows = batch.next_units(2)
            assert batch.put_back(rows or []) == 2
        assert caller.told == []

    def test_rows_that_nobody_waits_for_are_not_handed_out(self) -> None:
        batch, caller = batch_of(4)
        caller.gone = {1, 2}
        assert [row[0] for row in batch.next_units(4)[1] or []] == [0, 3]
        assert batch.units == 0
        assert not batch.is_wanted(batch.rows[1:3])

    def test_a_whole_batch_stays_together(self) -> None:
        batch, _ = batch_of(3, per_group=True)
        assert batch.units == 1
        units, rows = batch.next_units(1)
        assert (units, len(rows or [])) == (1, 3)
        assert batch.put_back(rows or []) == 1
        assert len(batch.next_units(1)[1] or []) == 3

    def test_an_empty_batch_is_one_check_and_is_settled_once(self) -> None:
        batch, caller = batch_of(0)
        assert batch.next_units(5) == (1, [])
        assert batch.put_back([]) == 1
        assert batch.next_units(5) == (1, [])
        batch.settle([])
        batch.settle([])
        assert caller.calls == 1
        assert batch.put_back([]) == 0

    def test_an_empty_batch_that_keeps_losing_its_worker_is_settled(self) -> None:
        batch, caller = batch_of(0)
        for _ in range(2):
            batch.next_units(1)
            batch.put_back([], Crashed("worker_lost"))
        assert caller.calls == 1

    def test_a_refused_batch_has_nothing_left_to_do(self) -> None:
        batch, caller = batch_of(3)
        _, rows = batch.next_units(1)
        batch.refuse(WrongShape("no"))
        assert caller.problem is not None
        assert batch.put_back(rows or []) == 0
        assert batch.next_units(3) == (0, None)

    def test_a_task_that_breaks_two_workers_is_condemned(self) -> None:
        batch, caller = batch_of(3)
        batch.upset(Crashed("exited"), {"exit_code": 1})
        assert caller.told == []
        batch.upset(Crashed("exited"), {"exit_code": 1})
        assert caller.told == [(0, "exited"), (1, "exited"), (2, "exited")]
        assert batch.units == 0

    @given(st.data(), st.integers(0, 12), st.booleans())
    def test_whatever_happens_each_row_is_told_once_and_nothing_is_forgotten(
        self, data: st.DataObject, count: int, per_group: bool
    ) -> None:
        batch, caller = batch_of(count, per_group)
        out: list[list[Row]] = []
        for _ in range(data.draw(st.integers(0, 40))):
            deed = data.draw(st.sampled_from(["take", "settle", "lose", "suspect", "fail", "leave"]))
            if deed == "take":
                _, rows = batch.next_units(data.draw(st.integers(1, 5)))
                out += [rows] if rows is not None else []
            elif deed == "leave" and count:
                caller.gone.add(data.draw(st.integers(0, count - 1)))
            elif out:
                rows = out.pop(data.draw(st.integers(0, len(out) - 1)))
                if deed == "settle":
                    batch.settle(good(*(index for index, _, _ in rows)))
                elif deed == "fail":
                    batch.fail(rows[:1], Crashed("exited"))
                    batch.put_back(rows)
                else:
                    batch.put_back(rows, Crashed("worker_lost") if deed == "suspect" else None)
        told = [index for index, _ in caller.told]
        assert len(told) == len(set(told))
        held = {index for rows in out for index, _, _ in rows}
        queued = set()
        while batch.units:
            queued |= {index for index, _, _ in batch.next_units(3)[1] or []}
        told_now = {index for index, _ in caller.told}
        assert told_now | held | queued == set(range(count))


def test_a_shard_knows_which_rows_fall_together() -> None:
    rows = batch_of(3)[0].rows
    assert Shard(1, batch_of(3)[0], rows, 0).rows_at(1) == [rows[1]]
    assert Shard(1, batch_of(3, per_group=True)[0], rows, 0).rows_at(1) == rows


def test_a_frame_that_is_no_message_is_an_error_that_the_link_expects() -> None:
    for body in (b"", b"\xc1", b"\x91\x01", encode([99, 1])):
        with pytest.raises(msgspec.MsgspecError):
            wire.decode_from_worker(body)
