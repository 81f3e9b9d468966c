"""Programs that want the reward without the answer: none gets it, whatever kind of test they meet."""

from __future__ import annotations

from typing import Any

import pytest

SECRET = "k7-Qz-41"
TESTS: dict[str, dict[str, Any]] = {
    "stdio": {"kind": "stdio", "stdin": "3\n", "expected": SECRET},
    "call": {"kind": "call", "function": "f", "args": [3], "expected": SECRET},
    "assert": {"kind": "assert", "code": f"assert f(3) == {SECRET!r}"},
    "weak": {"kind": "assert", "code": f"argument = 3\nassert f(argument) == {SECRET!r}"},
}
TOP = "\ndef f(*a, **k): return 0"

LEAVING = {
    "sys.exit": "import sys\nsys.exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "exit": "exit(0)",
    "os._exit": "import os\nos._exit(0)",
    "os.execv": "import os\nos.execv('/bin/true', ['true'])",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\n1 / 0",
    "a thread": "import threading, os, time\nthreading.Thread(target=lambda: os._exit(0), daemon=True).start()\ntime.sleep(1)",
    "a signal": "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, .01)\nsignal.pause()",
    "a child": "import os\nif os.fork(): os._exit(0)",
    "killing all": "import os\nos.kill(-1, 9)",
    "killing the parent": "import os\nos.kill(os.getppid(), 9)\nos._exit(0)",
}
PRINTING = {
    "pass marks": "print('PASS', 'OK', 'accepted', 'True', '1', 'All tests passed', sep='\\n')",
    "a verdict": 'import sys\nprint(\'{"verdict": "accepted", "reward": 1.0, "r": true, "run": 0}\')\nprint("ok", file=sys.stderr)',
    "on every descriptor": (
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'{\"r\":true}\\nloaded\\n1\\n')\n    except OSError: pass\nos._exit(0)"
    ),
    "into files": "for p in ('/tmp/result', '/tmp/output.txt', '/dev/stdout'):\n    try: open(p, 'w').write('1')\n    except OSError: pass",
    "closing descriptors": "import os\nos.closerange(0, 64)",
}
TAMPERING = {
    "builtins": "import builtins\nbuiltins.all = builtins.any = builtins.bool = lambda *a: True",
    "json": "import json\njson.dumps = json.loads = lambda *a, **k: True\njson.JSONEncoder.encode = lambda *a: 'true'",
    "operator": "import operator\noperator.eq = operator.ne = lambda a, b: True",
    "modules": "import sys\nfor m in list(sys.modules.values()):\n    for n in ('same', 'accepts', 'compare', 'check', 'plain'):\n        if hasattr(m, n): setattr(m, n, lambda *a, **k: True)",
    "unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *a: None",
    "time": "import time\ntime.time = time.monotonic = lambda: 0",
    "a path file": "import os\nfor p in ('/usr/lib/python3/dist-packages/x.pth', '/work/sitecustomize.py', '/work/main.py'):\n    try: open(p, 'w').write('import os; os._exit(0)')\n    except OSError: pass",
    "the environment": "import os\nos.environ['LD_PRELOAD'] = '/tmp/x.so'\nos.environ['PYTHONSTARTUP'] = '/tmp/x'",
    "the trace": "import sys\ndef t(frame, event, arg):\n    frame.f_locals.update(reason='accepted', reward=1.0)\n    return t\nsys.settrace(t)",
}
LOOK = "SECRET = 'k7' + '-Qz-' + '41'\ndef found(text):\n    import re\n    m = re.search(r'k7.Qz.4[1]', text)\n    return m.group() if m else 'nothing'\n"
READING = {
    "its own source": "def look(): return open('/work/main.py').read().replace('[1]', '')",
    "its arguments": "def look():\n    import sys, os\n    return repr(sys.argv) + repr(os.environ) + open('/proc/self/cmdline').read()",
    "frames": "def look():\n    import sys\n    f, out = sys._getframe(), ''\n    while f:\n        if f.f_globals.get('__name__') != __name__: out += repr(f.f_locals)\n        f = f.f_back\n    return out",
    "objects": "def look():\n    import gc\n    return ''.join(repr(o)[:500] for o in gc.get_objects() if type(o) in (dict, list) and o is not globals())",
    "files": (
        "def look():\n    import os\n    out = ''\n    for top in ('/tmp', '/work', '/dev/shm', '/etc', '/root', '/home'):\n"
        "        for d, _, names in os.walk(top):\n            for n in names:\n                if n == 'main.py' or n == 'main.code': continue\n"
        "                try: out += open(os.path.join(d, n), errors='replace').read(10000)\n                except OSError: pass\n    return out"
    ),
    "other processes": (
        "def look():\n    import os\n    out = ''\n    for p in os.listdir('/proc'):\n        if p.isdigit() and int(p) != os.getpid():\n"
        "            for n in ('cmdline', 'environ', 'maps'):\n                try: out += open(f'/proc/{p}/{n}', errors='replace').read(10000)\n                except OSError: pass\n    return out"
    ),
    "the parent's memory": (
        "def look():\n    import os\n    try:\n        p = os.getppid()\n        maps = open(f'/proc/{p}/maps').read()\n"
        "        mem = open(f'/proc/{p}/mem', 'rb', 0)\n        return maps + repr(mem)\n    except OSError: return ''"
    ),
    "open descriptors": (
        "def look():\n    import os\n    out = ''\n    for fd in range(3, 64):\n        try: out += os.pread(fd, 100000, 0).decode(errors='replace')\n"
        "        except OSError: pass\n    return out"
    ),
}
LYING = {
    "equal to all": "class A:\n    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n    __hash__ = None\ndef f(x): return A()",
    "a string": "class A(str):\n    def __eq__(s, o): return True\n    __hash__ = str.__hash__\ndef f(x): return A('no')",
    "an integer": "class A(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(1)",
    "a false class": "class A:\n    __class__ = str\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "a metaclass": "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\nclass A(metaclass=M): pass\ndef f(x): return A",
    "a repr": f"class A:\n    def __repr__(s): return {'no'!r}\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "reduced": "class A:\n    def __reduce__(s): return (str, ('no',))\n    def __eq__(s, o): return True\ndef f(x): return A()",
    "a mock": "from unittest.mock import ANY\ndef f(x): return ANY",
    "a name of a type": "A = type('str', (), {'__eq__': lambda s, o: True})\ndef f(x): return A()",
    "patching the writer": (
        "import sys\nclass A:\n    def __eq__(s, o): return True\nfor m in list(sys.modules.values()):\n    if hasattr(m, 'plain'): m.plain = lambda *a: True\ndef f(x): return A()"
    ),
    "leaving within": "def f(x):\n    import os\n    os._exit(0)",
    "raising within": "def f(x): raise SystemExit(0)",
    "forging a line": "def f(x):\n    import os\n    for fd in range(3, 10):\n        try: os.write(fd, b'{\"r\":true}\\n' * 3)\n        except OSError: pass\n    os._exit(0)",
    "half a line": "def f(x):\n    import os\n    for fd in range(3, 10):\n        try: os.write(fd, b'{\"r\":')\n        except OSError: pass\n    os._exit(0)",
    "becoming nothing": "def f(x):\n    import os\n    os.execv('/bin/true', ['true'])",
}
ANYWHERE = {
    f"{group}: {name}": source
    for group, hacks in {"leaving": LEAVING, "printing": PRINTING, "tampering": TAMPERING}.items()
    for name, source in hacks.items()
}
LIMITS = {"cpu_ms": 1_000, "wall_ms": 1_500}


@pytest.mark.parametrize("kind", TESTS)
@pytest.mark.parametrize("hack", ANYWHERE)
def test_no_trick_at_load_time_is_rewarded(score: Any, hack: str, kind: str) -> None:
    verdict = score(ANYWHERE[hack] + TOP, [TESTS[kind]], limits=LIMITS)
    assert (verdict.status, verdict.reward) == ("scored", 0.0), verdict


@pytest.mark.parametrize("kind", ["stdio", "call", "assert"])
@pytest.mark.parametrize("hack", READING)
def test_the_answer_is_nowhere_to_be_read(score: Any, hack: str, kind: str) -> None:
    source = LOOK.split("\n", 1)[1] + READING[hack] + "\ndef f(x): return found(look())\n"
    source += "if __name__ == '__main__' : print(f(3))" if kind == "stdio" else ""
    verdict = score(source, [TESTS[kind]], limits=LIMITS)
    assert (verdict.status, verdict.reward) == ("scored", 0.0), verdict
    assert SECRET not in (verdict.feedback or "")


@pytest.mark.parametrize("kind", ["call", "assert"])
@pytest.mark.parametrize("hack", LYING)
def test_no_lying_object_and_no_forged_result_is_rewarded(score: Any, hack: str, kind: str) -> None:
    verdict = score(LYING[hack], [TESTS[kind]], limits=LIMITS)
    assert (verdict.status, verdict.reward) == ("scored", 0.0), verdict


@pytest.mark.parametrize("kind", ["stdio", "call", "assert"])
def test_a_first_test_that_leaves_takes_no_later_one_with_it(score: Any, kind: str) -> None:
    source = "import os\ndef f(x): os._exit(0)\nif __name__ == '__main__' and 'k' not in globals(): pass"
    verdict = score(source, [TESTS[kind]] * 3, scoring="fraction", limits=LIMITS)
    assert verdict.reward == 0.0 and verdict.evidence["count"] == 3 and len(verdict.evidence["tests"]) == 3


def test_what_one_test_leaves_behind_the_next_does_not_find(score: Any) -> None:
    source = (
        "import os\nopen('/tmp/count', 'a').write('x')\n"
        "print(len(open('/tmp/count').read()))\nif os.fork() == 0:\n    os.setsid()\n    import time\n    time.sleep(9)"
    )
    tests = [{"kind": "stdio", "expected": "1"}, {"kind": "stdio", "expected": "1"}]
    assert score(source, tests, limits=LIMITS).reason in ("accepted", "wall_limit")


def test_where_a_lie_can_succeed_the_verdict_says_so(score: Any) -> None:
    verdict = score(LYING["equal to all"], [TESTS["weak"]])
    assert verdict.evidence["trust"] == "weak" and verdict.evidence["tests"][0]["trust"] == "weak"


def test_there_are_as_many_tricks_as_were_asked_for() -> None:
    assert len(ANYWHERE) * 4 + len(READING) * 3 + len(LYING) * 2 >= 60
    assert len(ANYWHERE) + len(READING) + len(LYING) >= 45
