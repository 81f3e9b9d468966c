"""Ten thousand verdicts while workers, minders and the parent are killed at random: none lost, doubled or changed."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

VERDICTS = 10_000
CLIENTS = 8
MARK = "TEST_OF_CHAOS"
MINE = str(os.getpid())
JUDGED = ("id", "reward", "status", "reason", "answer", "parts")


def groups() -> list[tuple[str, dict[str, Any]]]:
    """Groups of 1 to 64 rollouts for four rewards, no two rollouts alike, until there are enough."""
    chance = random.Random(7)
    made: list[tuple[str, dict[str, Any]]] = []
    total = 0
    while total < VERDICTS:
        size = min(chance.choice((1, 4, 16, 64)), VERDICTS - total)
        reward = chance.choice(("exact", "format", "math", "trouble"))
        rollouts = [{"completion": completion(reward, chance, total + number)} for number in range(size)]
        made.append((reward, {"task": {"reference": "7"}, "rollouts": rollouts, "deadline_ms": 120_000}))
        total += size
    return made


def completion(reward: str, chance: random.Random, number: int) -> str:
    if reward == "trouble":
        return "wait 0.02" if chance.random() < 0.1 else chance.choice(("7", f"no {number}"))
    if reward == "format":
        return f"<think>{number}</think><answer>{chance.choice(('7', ''))}</answer>"
    answer = chance.choice(("7", r"\frac{14}{2}", "8"))
    return rf"{number}: \boxed{{{answer}}}"


def judge_all(service: Any) -> list[Any]:
    """Every verdict of every group, in order."""

    def judge(group: tuple[str, dict[str, Any]]) -> list[Any]:
        status, reply = service.post(*group)
        assert status == 200, reply
        return [{name: verdict[name] for name in JUDGED} for verdict in reply["verdicts"]]

    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(judge, groups()))


class Killer(threading.Thread):
    """Kills something behind the front every few dozen milliseconds; now and then that is the parent of the workers."""

    def __init__(self, service: Any) -> None:
        super().__init__()
        self.service = service
        self.stopped = threading.Event()
        self.kills = 0

    def run(self) -> None:
        chance = random.Random(11)
        while not self.stopped.wait(chance.uniform(0.03, 0.1)):
            victims = [member for member in marked() if member.pid != self.service.process.pid]
            parents = [victim for victim in victims if ppid(victim) == self.service.process.pid]
            others = [victim for victim in victims if victim not in parents]
            chosen = parents if chance.random() < 0.03 else others
            if chosen:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(chosen).send_signal(signal.SIGKILL)
                    self.kills += 1


def ppid(process: psutil.Process) -> int | None:
    with suppress(psutil.NoSuchProcess):
        return int(process.ppid())
    return None


def marked() -> list[psutil.Process]:
    """Every living process that descends from this test's service, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == MINE and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_ten_thousand_verdicts_under_random_kills(start_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = str(Path(__file__).parent.parent / "plugins" / "trouble.py")
    with start_service(reward_files=plugin, workers="2", cache_mb="0") as service:
        calm = judge_all(service)
    monkeypatch.setenv(MARK, MINE)
    with start_service(reward_files=plugin, workers="2", cache_mb="0") as service:
        whole, sockets = len(marked()), len(service.tree[0].net_connections("unix"))
        killer = Killer(service)
        killer.start()
        try:
            wild = judge_all(service)
        finally:
            killer.stopped.set()
            killer.join()
        assert killer.kills > 20
        compare(calm, wild, killer.kills)
        wait_until_whole(service, whole, sockets)
        assert service.stop() == 0
    assert marked() == []


def compare(calm: list[Any], wild: list[Any], kills: int) -> None:
    """A verdict is the same as on a calm day, or it has no number and says that a process died."""
    statuses: Counter[str] = Counter()
    for calm_group, wild_group in zip(calm, wild, strict=True):
        assert [verdict["id"] for verdict in wild_group] == [verdict["id"] for verdict in calm_group]
        for expected, verdict in zip(calm_group, wild_group, strict=True):
            if verdict["status"] == "crashed":
                assert verdict["reward"] is None
            else:
                assert verdict == expected
            statuses[verdict["status"]] += 1
    assert statuses.total() == VERDICTS
    assert 0 < statuses["crashed"] <= 2 * kills


def wait_until_whole(service: Any, processes: int, sockets: int) -> None:
    """The service is ready, and has as many processes and sockets as at the start."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ready = service.call("GET", "/readyz")[0] == 200
        if ready and (len(marked()), len(service.tree[0].net_connections("unix"))) == (processes, sockets):
            return
        time.sleep(0.1)
    raise AssertionError([(member.pid, ppid(member), member.status()) for member in marked()])
