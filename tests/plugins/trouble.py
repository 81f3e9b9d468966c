"""A reward that does whatever its rollout says: the worst plugin there is, for the tests."""

import ctypes
import os
import signal
import subprocess
import sys
import time

from rewardsvc.reward import Case, Cpu, InvalidTask, PerRollout, Verdict


def _spin() -> None:
    while True:
        pass


def _eat() -> None:
    hoard = []
    while True:
        hoard.append(b"x" * (1 << 20))


def _catch_memory_error() -> None:
    try:
        _eat()
    except MemoryError:
        return


def _garbage() -> None:
    for name in os.listdir("/proc/self/fd"):
        if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
            os.write(int(name), b"\xff\xff\xff\x7fgarbage")
    time.sleep(30)


DEEDS = {
    "hang in C": lambda: ctypes.CDLL(None).sleep(60),
    "hang in a regex": lambda: __import__("re").match(r"(a+)+$", "a" * 64 + "b"),
    "sleep": lambda: time.sleep(60),
    "spin": _spin,
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "exit 0": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit(0),
    "eat memory": _eat,
    "eat memory and hide it": _catch_memory_error,
    "kill the parent": lambda: (os.kill(os.getppid(), signal.SIGKILL), time.sleep(30)),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "garbage": _garbage,
    "raise": lambda: [][1],
    "recurse": lambda: exec("def f(): f()\nf()", {}),
    "daemon": lambda: subprocess.Popen(["sleep", "1000"], start_new_session=True),
}
VERDICTS = {
    "nan": float("nan"),
    "inf": float("inf"),
    "string": "1.0",
    "two": 2.0,
    "none": None,
    "bool": True,
}


class Trouble(PerRollout):
    """Judges honestly, unless the rollout names a deed."""

    name, version = "trouble", "1"
    resources = Cpu(item_timeout=0.4, memory_mb=64)
    cases = [Case.full("fine", reference="fine"), Case.zero("else", reference="fine")]

    def check_task(self, task, params):
        if task.metadata.get("spoilt"):
            raise InvalidTask("/task/metadata/spoilt", "this task is spoilt")
        if task.metadata.get("deed"):
            DEEDS[task.metadata["deed"]]()

    def score(self, rollout, task, params):
        text = rollout.text
        if text.startswith("wait "):
            time.sleep(float(text.split()[1]))
        if text in DEEDS:
            DEEDS[text]()
        if text == "nothing":
            return None
        if text == "wrong id":
            return Verdict(id="somebody else", reward=1.0, reason="mine")
        if text in VERDICTS:
            return Verdict(reward=VERDICTS[text], reason="odd")
        same = text == task.reference
        return Verdict.scored(float(same), "equal" if same else "not_equal", answer=text[:100])
