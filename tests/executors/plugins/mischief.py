"""More deeds than tests/plugins/trouble.py has: those that try to blame somebody else, or to leave something behind."""

import ctypes
import os
import signal
import subprocess
import time

from rewardsvc.reward import Case, Cpu, NotScored, PerRollout, Verdict


def _spin():
    while True:
        pass


def _sockets():
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                yield int(name)
        except OSError:
            continue


def _garbage(data):
    for descriptor in _sockets():
        os.write(descriptor, data)


def _shut_sockets():
    for descriptor in _sockets():
        os.close(descriptor)


def _grow(megabytes):
    HOARD.append(b"x" * (megabytes << 20))


def _double_daemon():
    subprocess.run("sleep 1000 & exit", shell=True, start_new_session=True, check=True)


def _daemon_and_kill_the_parent():
    _double_daemon()
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)


class OddFault(NotScored):
    def __init__(self):
        Exception.__init__(self, "no reason, no feedback")


class MuteError(Exception):
    def __str__(self):
        raise ValueError("no text")


def _spoil():
    """Breaks something that every other reward of the same worker would trip over, and then itself."""
    import rewardsvc.reward

    rewardsvc.reward.Verdict.scored = None
    raise ValueError("broken")


def _raise(error):
    raise error


HOARD = []
DEEDS = {
    "stop the parent": lambda: (os.kill(os.getppid(), signal.SIGSTOP), _spin()),
    "kill the process group": lambda: (os.killpg(0, signal.SIGKILL), time.sleep(30)),
    "garbage": lambda: _garbage(b"\xff\xff\xff\x7fgarbage"),
    "small garbage": lambda: _garbage(b"\x03\x00\x00\x00abc"),
    "half a frame": lambda: _garbage(b"\x40\x00\x00\x00abc"),
    "shut sockets": _shut_sockets,
    "shut sockets and spin": lambda: (_shut_sockets(), _spin()),
    "spoil and raise": _spoil,
    "fork": os.fork,
    "fork and exit": lambda: os.fork() and os._exit(1),
    "double daemon": _double_daemon,
    "daemon and kill the parent": _daemon_and_kill_the_parent,
    "odd fault": lambda: _raise(OddFault()),
    "mute error": lambda: _raise(MuteError()),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "ignore signals and spin": lambda: (signal.signal(signal.SIGTERM, signal.SIG_IGN), _spin()),
    "pause in C": lambda: ctypes.CDLL(None).pause(),
    "allocate 100 GB": lambda: bytearray(100 << 30),
    "grow by 15": lambda: _grow(15),
    "grow by 36": lambda: _grow(36),
    "grow by 90": lambda: (_grow(90), time.sleep(1)),
    "grow by 90 and shrink": lambda: (_grow(90), HOARD.clear()),
}
VERDICTS = {
    "evidence with a number for a name": lambda: Verdict.scored(1.0, "odd", evidence={1: 2}),
    "evidence with a set": lambda: Verdict.scored(1.0, "odd", evidence={"a": {1, 2}}),
    "evidence with an object": lambda: Verdict.scored(1.0, "odd", evidence={"a": object()}),
    "evidence of 10 MB": lambda: Verdict.scored(1.0, "odd", evidence={"a": "x" * 10_000_000}),
    "evidence of depth 10000": lambda: Verdict.scored(1.0, "odd", evidence={"a": _nested(10_000)}),
    "a huge number": lambda: Verdict.scored(1.0, "odd", evidence={"a": 10**40}),
    "a lone surrogate": lambda: Verdict.scored(1.0, "odd", answer="\ud800"),
    "an undeclared part": lambda: Verdict.scored(1.0, "odd", parts={"a": 1.0}),
    "no reason": lambda: Verdict(reward=1.0, reason=None),
    "an unknown status": lambda: Verdict(status="splendid", reason="odd"),
    "a number without a score": lambda: Verdict(status="timeout", reward=1.0, reason="odd"),
    "parts in a list": lambda: Verdict(reward=1.0, reason="odd", parts=[]),
    "a class": lambda: Verdict,
}


def _nested(depth):
    nested = []
    for _ in range(depth):
        nested = [nested]
    return nested


class Mischief(PerRollout):
    """1.0 when the rollout equals the reference, unless it names a deed."""

    name, version = "mischief", "1"
    resources = Cpu(item_timeout=0.4, memory_mb=60)
    cases = [Case.full("fine", reference="fine"), Case.zero("else", reference="fine")]

    def check_task(self, task, params):
        if task.metadata.get("deed"):
            DEEDS[task.metadata["deed"]]()

    def score(self, rollout, task, params):
        text = rollout.text
        if text in DEEDS:
            DEEDS[text]()
        if text in VERDICTS:
            return VERDICTS[text]()
        same = text == task.reference
        return Verdict.scored(float(same), "equal" if same else "not_equal", answer=text[:100])
