"""The file of verdicts: whatever ended an earlier run, nothing is lost, and everything ends in order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardsvc.cli.journal import Journal, NotAJournal

SCORED = {"input": "f00d", "verdicts": [{"id": "0", "status": "scored"}, {"id": "1", "status": "timeout"}]}
FAILED = {"input": "f00d", "problem": {"type": "overloaded"}}


def write(path: Path, *lines: tuple[int, dict[str, object]], order: range = range(10)) -> bytes:
    journal = Journal(path)
    for group_id, about in lines:
        journal.write(group_id, about)
    journal.close(order)
    return path.read_bytes()


def ids(path: Path) -> list[int]:
    return [int(line.split(b",")[0].split(b":")[1]) for line in path.read_bytes().splitlines()]


@given(cut=st.integers(0, 400))
@settings(max_examples=60, deadline=None)
def test_wherever_a_run_was_cut_off_whole_lines_are_kept_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "verdicts.jsonl"
    whole = write(path, *((number, SCORED) for number in range(4)))
    path.write_bytes(whole[:cut])
    journal = Journal(path)
    kept = sorted(journal.kept)
    assert kept == list(range(whole[:cut].count(b"\n")))
    for number in range(len(kept), 4):
        journal.write(number, SCORED)
    journal.close(range(4))
    assert path.read_bytes() == whole


def test_a_kept_group_says_what_it_was(tmp_path: Path) -> None:
    write(tmp_path / "v", (7, SCORED))
    kept = Journal(tmp_path / "v").kept[7]
    assert (kept.rollouts, kept.unscored) == (2, ("timeout",))
    assert kept.fingerprint == "f00d"


def test_a_group_that_failed_is_not_kept(tmp_path: Path) -> None:
    write(tmp_path / "v", (1, FAILED), (2, SCORED))
    assert list(Journal(tmp_path / "v").kept) == [2]


def test_the_new_line_of_a_group_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "v", (1, FAILED), (2, SCORED), (3, FAILED))
    assert write(tmp_path / "v", (1, SCORED), (3, FAILED)).count(b"problem") == 1
    assert ids(tmp_path / "v") == [1, 2, 3]


def test_a_failure_never_takes_the_place_of_verdicts(tmp_path: Path) -> None:
    write(tmp_path / "v", (1, SCORED))
    assert b"problem" not in write(tmp_path / "v", (1, FAILED))


def test_until_it_is_closed_the_file_only_grows(tmp_path: Path) -> None:
    before = write(tmp_path / "v", (1, FAILED), (2, SCORED))
    journal = Journal(tmp_path / "v")
    journal.write(1, SCORED)
    assert (tmp_path / "v").read_bytes().startswith(before)
    journal.close(range(3))
    assert ids(tmp_path / "v") == [1, 2]


def test_groups_of_another_input_stay_in_front(tmp_path: Path) -> None:
    write(tmp_path / "v", (8, SCORED), (9, SCORED))
    write(tmp_path / "v", (2, SCORED), (1, SCORED), order=range(5))
    assert ids(tmp_path / "v") == [8, 9, 1, 2]


def test_the_mode_and_a_link_survive_a_change_of_order(tmp_path: Path) -> None:
    (tmp_path / "real").touch(0o600)
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", (2, SCORED), (1, SCORED))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    assert ids(tmp_path / "real") == [1, 2]


def test_only_one_at_a_time(tmp_path: Path) -> None:
    first = Journal(tmp_path / "v")
    with pytest.raises(NotAJournal, match="another"):
        Journal(tmp_path / "v")
    first.close(())


def test_half_a_line_is_cut_off_even_when_nothing_follows(tmp_path: Path) -> None:
    whole = write(tmp_path / "v", (1, SCORED))
    (tmp_path / "v").write_bytes(whole + whole[:-1])
    assert write(tmp_path / "v") == whole
