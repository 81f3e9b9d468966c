"""`rewardsvc score`: every group once, in order, whatever interrupts it, and an exit code that tells the truth."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rewardsvc.cli.groups import parse
from rewardsvc.cli.score import ask, in_order
from rewardsvc.client import AsyncClient
from rewardsvc.errors import ServiceUnreachable


def group(*completions: str, reward: str | None = "exact", reference: Any = "42", **about: Any) -> dict[str, Any]:
    rollouts = [{"completion": completion} for completion in completions]
    named = {"reward": reward} if reward else {}
    return {**named, "task": {"reference": reference}, "rollouts": rollouts, **about}


def slow_groups(count: int, seconds: float, log: Path) -> list[dict[str, Any]]:
    """Groups of the plugin `patient`, which writes a line to the log whenever it runs."""
    task = {"metadata": {"log": str(log)}}
    return [
        {"reward": "patient", "task": task, "rollouts": [{"completion": f"{seconds} {number}"}]}
        for number in range(count)
    ]


def rewards(line: Any) -> list[float | None]:
    return [verdict["reward"] for verdict in line["verdicts"]]


def without_times(line: Any) -> Any:
    verdicts = [{**verdict, "timing": None, "cached": None} for verdict in line["verdicts"]]
    return {**line, "request_id": None, "verdicts": verdicts}


def wait_for_lines(path: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < end, "the command wrote nothing"
        time.sleep(0.02)


@pytest.fixture
def running(rewardsvc: Any, plugin: Callable[[str], str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `score` on its own service, slow enough to be interrupted; returns when some lines are written."""
    started: list[subprocess.Popen[str]] = []

    def start(groups: int = 60, seconds: float = 0.06) -> subprocess.Popen[str]:
        rewardsvc.write("groups.jsonl", *slow_groups(groups, seconds, rewardsvc.folder / "log"))
        arguments = ("score", "groups.jsonl", "-o", "verdicts.jsonl", "--concurrency", "2")
        started.append(rewardsvc.start(*arguments, reward_files=plugin("patient"), workers="2"))
        wait_for_lines(rewardsvc.folder / "verdicts.jsonl", 5)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_line_per_group_in_the_order_of_the_input(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", *(group(str(number), reference=str(number % 2)) for number in range(50)))
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    lines = rewardsvc.read("verdicts.jsonl")
    assert done.returncode == 0, done.stderr
    assert [line["group_id"] for line in lines] == list(range(1, 51))
    assert [rewards(line) for line in lines] == [[float(number < 2)] for number in range(50)]
    assert "Scored 50 of 50 rollouts in 50 groups." in done.stderr
    assert done.stdout == ""


def test_it_starts_a_service_of_its_own_and_stops_it(rewardsvc: Any) -> None:
    rewardsvc.write("groups.jsonl", group("42", "41", group_id="a"))
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", api_keys="of-the-environment")
    assert done.returncode == 0, done.stderr
    assert [(line["group_id"], rewards(line)) for line in rewardsvc.read("verdicts.jsonl")] == [("a", [1.0, 0.0])]


def test_standard_input_and_output(rewardsvc: Any, service: str) -> None:
    text = json.dumps(group("42", reward=None)) + "\n\n" + json.dumps(group("41", reward="format"))
    done = rewardsvc("score", "-", "-o", "-", "--reward", "exact", "--url", service, stdin=text)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [(line["group_id"], line["reward"], rewards(line)) for line in lines] == [
        (1, "exact", [1.0]),
        (3, "format", [0.0]),
    ]


def test_what_has_no_number_is_counted_by_status(rewardsvc: Any, service: str) -> None:
    spoilt = group("42", params={"no_such_parameter": 1})
    rewardsvc.write("groups.jsonl", group("42", "42", reference=" "), spoilt, group("42"))
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    lines = rewardsvc.read("verdicts.jsonl")
    assert done.returncode == 3
    assert "Scored 1 of 3 rollouts in 2 groups." in done.stderr
    assert "Without a number: bad_reference 2." in done.stderr
    assert "Groups that failed: wrong-shape 1." in done.stderr
    assert rewards(lines[0]) == [None, None]
    assert (lines[1]["group_id"], lines[1]["problem"]["type"], lines[1]["problem"]["status"]) == (2, "wrong-shape", 422)
    assert lines[1]["problem"]["errors"][0]["pointer"].startswith("/params")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"rollouts": [', "line 2: The JSON ends too early"),
        ('{"reward": "exact", "reward": "math", "rollouts": []}', "occurs twice"),
        ('{"reward": "exact", "rollouts": [], "n": NaN}', "line 2"),
        ('{"reward": "exact", "rollout": []}', "Unknown field `rollout`; did you mean `rollouts`?"),
        ('{"reward": "exact", "rollouts": [{"completion": 1}]}', "(at /rollouts/0/completion)"),
        ('{"reward": "exact", "rollouts": [{"id": "a", "completion": ""}, {"id": "a", "completion": ""}]}', "same id"),
        ('{"rollouts": []}', 'names no reward; add "reward" to it, or pass --reward'),
        ('{"reward": "exact", "group_id": "first", "rollouts": []}', "line 1 has the group_id 'first' already"),
        ('{"reward": "no_such_reward", "rollouts": []}', "line 2: the service has no reward 'no_such_reward'"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_scored(rewardsvc: Any, service: str, line: str, message: str) -> None:
    rewardsvc.write("groups.jsonl", group("42", group_id="first"), line)
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (rewardsvc.folder / "verdicts.jsonl").exists() or rewardsvc.read("verdicts.jsonl") == []


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (b'{\n  "reward": "exact",\n  "rollouts": []\n}\n', "`jq -c . groups.jsonl` puts each on a line of its own"),
        (b'\n[{"reward": "exact", "rollouts": []}]', "`jq -c '.[]' groups.jsonl` puts each group on a line"),
        (gzip.compress(b"{}"), "`gunzip -c groups.jsonl | rewardsvc score - …`"),
        (b'\xef\xbb\xbf{"reward": "exact", "rollouts": []}', "`tail -c +4 groups.jsonl` leaves that out"),
        ("{}".encode("utf-16"), "`iconv -f UTF-16 -t UTF-8 groups.jsonl`"),
    ],
)
def test_a_file_in_another_form_is_named_with_the_remedy(rewardsvc: Any, content: bytes, remedy: str) -> None:
    (rewardsvc.folder / "groups.jsonl").write_bytes(content)
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl")
    assert done.returncode == 2
    assert done.stderr.startswith("groups.jsonl: ")
    assert remedy in done.stderr
    assert done.stderr.endswith("Nothing was scored.\n")
    assert not (rewardsvc.folder / "verdicts.jsonl").exists()


@pytest.mark.parametrize("missing", ["groups", "output folder"])
def test_a_missing_file_is_bad_usage(rewardsvc: Any, missing: str) -> None:
    if missing == "output folder":
        rewardsvc.write("groups.jsonl", group("42"))
    done = rewardsvc("score", "groups.jsonl", "-o", "no/such/folder/verdicts.jsonl")
    assert done.returncode == 2
    assert "No such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_is_not_there_is_told_soon(rewardsvc: Any) -> None:
    rewardsvc.write("groups.jsonl", group("42"))
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "No reward service is at http://127.0.0.1:9 " in done.stderr


def test_the_key_comes_from_the_environment(rewardsvc: Any, start_service: Any) -> None:
    rewardsvc.write("groups.jsonl", group("42"))
    with start_service(api_keys="secret") as service:
        command = ("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service.url)
        refused, taken = rewardsvc(*command), rewardsvc(*command, api_key="secret")
    assert (refused.returncode, taken.returncode) == (1, 0)
    assert "Set REWARDSVC_API_KEY." in refused.stderr


def test_a_killed_run_is_taken_up_again(rewardsvc: Any, running: Any, plugin: Any, all_gone: Any) -> None:
    process = running()
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert all_gone(family), "processes were left over"

    verdicts = rewardsvc.folder / "verdicts.jsonl"
    before = verdicts.read_bytes()
    verdicts.write_bytes(before + before[:40])  # as if the kill had come in the middle of a line
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", reward_files=plugin("patient"))
    lines = rewardsvc.read("verdicts.jsonl")
    runs = (rewardsvc.folder / "log").read_text().count("run")
    assert done.returncode == 0, done.stderr
    assert verdicts.read_bytes().startswith(before), "lines that were complete have changed"
    assert [line["group_id"] for line in lines] == list(range(1, 61))
    assert all(rewards(line) == [1.0] for line in lines)
    assert runs < 60 + 60 - before.count(b"\n"), "groups that were written have been scored again"
    assert "Scored 60 of 60 rollouts in 60 groups." in done.stderr


def test_ctrl_c_leaves_a_file_to_go_on_from_and_no_process(rewardsvc: Any, running: Any, all_gone: Any) -> None:
    process = running()
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    lines = rewardsvc.read("verdicts.jsonl")
    assert process.returncode == 130, errors
    assert "Interrupted. The same command goes on from here." in errors
    assert "Traceback" not in errors
    assert 5 <= len(lines) < 60
    assert [line["group_id"] for line in lines] == list(range(1, len(lines) + 1))
    assert all_gone(family), "processes were left over"


def test_the_death_of_its_service_ends_it(rewardsvc: Any, running: Any) -> None:
    process = running()
    psutil.Process(process.pid).children()[0].kill()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "The service ended before its time." in errors
    assert rewardsvc.read("verdicts.jsonl")


def test_groups_that_failed_are_tried_again_and_stand_where_they_belong(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", *(group("42", group_id=name) for name in "abcd"))
    command = ("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    assert rewardsvc(*command).returncode == 0
    calm = rewardsvc.read("verdicts.jsonl")
    failed = {"group_id": "b", "input": "f00d", "reward": "exact", "problem": {"type": "overloaded"}}
    rewardsvc.write("verdicts.jsonl", calm[0], failed, calm[2])
    done = rewardsvc(*command)
    again = rewardsvc.read("verdicts.jsonl")
    assert done.returncode == 0, done.stderr
    assert [without_times(line) for line in again] == [without_times(line) for line in calm]
    assert (again[0], again[2]) == (calm[0], calm[2])


def test_a_complete_file_needs_no_service_and_keeps_its_exit_code(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", group("42"), group("42", reference=" "))
    command = ("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url")
    first, second = rewardsvc(*command, service), rewardsvc(*command, "http://127.0.0.1:9")
    assert (first.returncode, second.returncode) == (3, 3)
    assert first.stderr == second.stderr


def test_unscored_groups_are_tried_again_on_request(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", group("42"), group("42", reference=" "))
    command = ("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    first = rewardsvc(*command) and rewardsvc.read("verdicts.jsonl")
    again = rewardsvc(*command, "--retry-unscored") and rewardsvc.read("verdicts.jsonl")
    assert again[0] == first[0]
    assert again[1]["request_id"] != first[1]["request_id"]
    assert [line["group_id"] for line in again] == [1, 2]


@pytest.mark.parametrize("content", ["my precious notes\n", "my precious notes", '{"group_id": 1, "rollouts": []}\n'])
def test_a_file_that_is_no_file_of_verdicts_is_left_alone(rewardsvc: Any, content: str) -> None:
    rewardsvc.write("groups.jsonl", group("42"))
    (rewardsvc.folder / "notes").write_text(content)
    done = rewardsvc("score", "groups.jsonl", "-o", "notes")
    assert done.returncode == 2
    assert "did not write" in done.stderr
    assert (rewardsvc.folder / "notes").read_text() == content


def test_verdicts_on_another_input_are_left_alone(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", group("42"))
    rewardsvc.write("others.jsonl", group("42", "43"))
    first = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    written = (rewardsvc.folder / "verdicts.jsonl").read_bytes()
    other = rewardsvc("score", "others.jsonl", "-o", "verdicts.jsonl", "--url", service)
    assert (first.returncode, other.returncode) == (0, 2)
    assert "It belongs to another input" in other.stderr
    assert (rewardsvc.folder / "verdicts.jsonl").read_bytes() == written


def test_two_runs_do_not_write_to_one_file(rewardsvc: Any, running: Any) -> None:
    running()
    done = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl")
    assert done.returncode == 2
    assert "another `rewardsvc score`" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", *(group("42", "x" * 2000, group_id=number) for number in range(400)))
    process = rewardsvc.start("score", "groups.jsonl", "-o", "-", "--url", service)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(30) == 1
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_results_come_in_order_and_not_too_many_are_under_way() -> None:
    under_way, most = 0, 0

    async def work(item: int) -> int:
        nonlocal under_way, most
        under_way, most = under_way + 1, max(most, under_way + 1)
        await asyncio.sleep(0.001 * (item * 7 % 5))
        under_way -= 1
        return item

    async def collect() -> list[int]:
        return [item async for item in in_order(range(200), work, at_once=4)]

    assert asyncio.run(collect()) == list(range(200))
    assert most == 4


def test_a_slow_group_does_not_let_the_others_pile_up() -> None:
    taken: list[int] = []

    async def work(item: int) -> int:
        taken.append(item)
        await asyncio.sleep(0.2 if item == 0 else 0)
        return item

    async def first() -> int:
        results = in_order(range(1000), work, at_once=2)
        try:
            return await anext(results)
        finally:
            await results.aclose()

    assert asyncio.run(first()) == 0
    assert len(taken) <= 16


def test_a_group_that_no_service_answers_is_not_recorded_as_failed() -> None:
    line = parse(1, json.dumps(group("42")).encode())

    async def asked() -> None:
        async with AsyncClient("http://127.0.0.1:9", timeout=0.5) as client:
            await ask(client, line)

    with pytest.raises(ServiceUnreachable):
        asyncio.run(asked())


def test_verdicts_on_an_older_version_of_the_input_are_never_passed_off_as_new(rewardsvc: Any, service: str) -> None:
    rewardsvc.write("groups.jsonl", group("1", group_id="a"))
    assert rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service).returncode in (0, 3)
    rewardsvc.write("groups.jsonl", group("2", group_id="a"))
    again = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    assert again.returncode == 2 and "another request" in again.stderr
    rewardsvc.write("groups.jsonl", group("1", group_id="b"))
    other = rewardsvc("score", "groups.jsonl", "-o", "verdicts.jsonl", "--url", service)
    assert other.returncode == 2 and "not in the input" in other.stderr
