"""Runs a Python program in a process forked from the warm template, as `python main.py` would.

Everything here happens in the untrusted process: what it reports is no more than the program's own word.
"""

from __future__ import annotations

import atexit
import io
import marshal
import os
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rewardsvc.sandbox import python_calls, rootfs

_STRANGERS = ("rewardsvc", "ctypes")
_CALLS, _RETURNS = 3, 4

Spec = dict[str, Any]


def prepare() -> None:
    """Makes this process look like a fresh interpreter, as far as that can be done before there is a program.

    The streams are made on stand-ins of the same kind, as they remember whether they can be repositioned.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] in _STRANGERS]:
        del sys.modules[name]
    reading, writing = os.pipe()
    os.dup2(os.memfd_create("input"), 0)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    sys.stdin = _text(0, "r", "surrogateescape")
    sys.stdout = _text(1, "w", "surrogateescape")
    sys.stderr = _text(2, "w", "backslashreplace", line_buffering=True)
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    os.close(reading)


def run(spec: Spec) -> NoReturn:
    """`spec["python"]` says what: "compile", "main" or "calls"."""
    work: dict[str, Callable[[Spec], None]] = {"compile": _compile, "main": _main, "calls": _calls}
    _freshen(spec)
    os._exit(_finish(_attempt(work[spec["python"]], spec)))


def _freshen(spec: Spec) -> None:
    """A new interpreter, as far as a program can tell."""
    if "random" in sys.modules:
        sys.modules["random"].seed()
    sys.argv[:] = [spec["file"], *spec["arguments"]]
    sys.orig_argv[:] = ["python3", *sys.argv]
    sys.path.insert(0, rootfs.WORK)


def _text(descriptor: int, mode: str, errors: str, *, line_buffering: bool = False) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    text = io.TextIOWrapper(buffer, "utf-8", errors, line_buffering=line_buffering)
    text.mode = mode  # type: ignore[misc]
    return text


def _attempt(work: Callable[[Spec], None], spec: Spec) -> int:
    """The exit code that the interpreter would give."""
    try:
        work(spec)
    except SystemExit as leaving:
        return _exit_code(leaving.code)
    except BaseException as error:  # noqa: BLE001 the program's own end
        _tell(error)
        return 1
    return 0


def _exit_code(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def _tell(error: BaseException) -> None:
    """Shows the traceback without our own frames in it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OURS:
        trace = trace.tb_next
    error.__traceback__ = trace
    sys.excepthook(type(error), error, trace)


def _finish(code: int) -> int:
    """What the interpreter does at its end: threads, exit functions, buffers."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 the program's own end
        return code or 120
    return code


def _compile(spec: Spec) -> None:
    """Writes the code object to standard output."""
    source = Path(spec["file"]).read_bytes()
    try:
        code = compile(source, spec["file"], "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        error.__traceback__ = None
        sys.excepthook(type(error), error, None)
        raise SystemExit(1) from None
    sys.stdout.buffer.write(marshal.dumps(code))


def _module(spec: Spec) -> types.ModuleType:
    module = types.ModuleType("__main__")
    module.__file__ = spec["file"]
    module.__builtins__ = sys.modules["builtins"]  # type: ignore[attr-defined]
    sys.modules["__main__"] = module
    return module


def _execute(spec: Spec) -> types.ModuleType:
    code = marshal.loads(Path(spec["code"]).read_bytes())  # made by _compile, run where it is read
    module = _module(spec)
    sys.setrecursionlimit(sys.getrecursionlimit() + _depth())
    exec(code, module.__dict__)  # noqa: S102 this is the box
    return module


def _depth() -> int:
    frame, depth = sys._getframe(), 0
    while frame.f_back is not None:
        frame, depth = frame.f_back, depth + 1
    return depth + 1


def _main(spec: Spec) -> None:
    _execute(spec)


def _calls(spec: Spec) -> None:
    python_calls.serve(_execute(spec), _CALLS, _RETURNS)


_OURS = {_main.__code__.co_filename, python_calls.serve.__code__.co_filename}
