"""The runner's side of a box: opening it, giving it files, starting tests in it, and making sure that it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rewardsvc.sandbox import languages, wire

_START_SECONDS = 20.0
_ANSWER_SECONDS = 10.0
_GONE_SECONDS = 5.0
_STACK_BYTES = 1 << 30
_LAUNCH = "import sys; sys.path.insert(0, sys.argv[1]); from rewardsvc.sandbox import template; "
_MAIN = "template.main(int(sys.argv[2]), sys.argv[3])"


class Broken(Exception):
    """The sandbox itself failed; no program is to blame. The message says how."""


class Template:
    """A warm process of `template.py`, started when it is first needed and again when it has died."""

    def __init__(self, configuration: dict[str, Any], environment: Mapping[str, str]) -> None:
        self._environment = environment
        """A Python program runs with the template's own."""
        self._configuration = configuration
        self._control: socket.socket | None = None
        self._pid = 0
        """The first process of its namespaces, a child of this one; 0 when there is none."""

    def control(self, meter_admits: Any) -> socket.socket:
        """The socket to a template that runs. Raises `Broken`."""
        if self._control is None:
            self._control = self._start(meter_admits)
        return self._control

    def _start(self, admit: Any) -> socket.socket:
        ours, theirs = wire.pair()
        ours.settimeout(_START_SECONDS)
        command = [sys.executable, "-s", "-S", "-P", "-B", "-c", _LAUNCH + _MAIN]
        arguments = [languages.HOME, str(theirs.fileno()), json.dumps({**self._configuration, "home": languages.HOME})]
        with theirs:
            starting = subprocess.Popen(
                [*command, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        try:
            admit(starting.pid)
            wire.send(ours, {"go": True})
            self._pid = _greeting(ours, "pid")
            _greeting(ours, "ready")
        except (OSError, ValueError, Broken) as error:
            ours.close()
            self.stop()
            raise Broken(str(error)) from None
        finally:
            starting.kill()
            starting.wait()
        return ours

    def stop(self) -> None:
        """Everything below the template dies with it."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0


def _greeting(control: socket.socket, word: str) -> int:
    """The value that came with a word from a template that starts. Raises `Broken` and OSError."""
    message = wire.receive(control)
    if message is None or word not in message.fields:
        raise Broken(f"template: {message.fields.get('broken') if message else 'it died'}")
    return int(message.fields[word])


class Box:
    """One submission's box. A context manager: at its end the box is gone, or `Broken` is raised."""

    def __init__(self, template: Template, order: dict[str, Any], admit: Any) -> None:
        self._template = template
        self._to_template = template.control(admit)
        self.control, theirs = wire.pair()
        self.control.settimeout(_ANSWER_SECONDS)
        with theirs:
            self._ask_template(order, theirs)

    def _ask_template(self, order: dict[str, Any], theirs: socket.socket) -> None:
        try:
            wire.send(self._to_template, order, [theirs.fileno()])
            opened = wire.receive(self._to_template)
        except (OSError, ValueError) as error:
            opened, reason = None, str(error)
        else:
            reason = "it died"
        if opened is None or not opened.descriptors:
            self.control.close()
            self._template.stop()
            raise Broken(f"template: {opened.fields if opened else reason}")
        self._process = opened.descriptors[0]
        self.pid = _pid_of(self._process)

    def put(self, name: str, source: int, *, executable: bool = False) -> None:
        """Copies what `source`, a descriptor, holds into the box's files."""
        self.send({"do": "put", "name": name, "mode": 0o755 if executable else 0o644}, [source])

    def take(self, name: str) -> int | None:
        """A descriptor of a file that a program left, to be closed by the caller. Its content is hostile."""
        self.send({"do": "take", "name": name})
        descriptors = self.receive().descriptors
        return descriptors[0] if descriptors else None

    def send(self, fields: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Raises `Broken`."""
        try:
            wire.send(self.control, fields, list(descriptors))
        except OSError as error:
            raise Broken(f"box: {error}") from None

    def receive(self) -> wire.Message:
        """The box's next word. Raises `Broken`."""
        try:
            message = wire.receive(self.control)
        except (OSError, ValueError) as error:
            raise Broken(f"box: {error}") from None
        if message is None or "broken" in message.fields:
            raise Broken(message.fields["broken"] if message else "box: it died")
        return message

    def close(self) -> None:
        """Kills the box's first process, and so all others, and waits until the kernel says that they are gone."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        os.close(self._process)
        self.control.close()
        self._to_template.settimeout(_GONE_SECONDS)
        try:
            gone = wire.receive(self._to_template)
        except (OSError, ValueError):
            gone = None
        self._to_template.settimeout(_START_SECONDS)
        if gone is None or "gone" not in gone.fields:
            self._template.stop()

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pid_of(descriptor: int) -> int:
    """The process id behind a pid descriptor, as this process numbers it."""
    with open(f"/proc/self/fdinfo/{descriptor}") as file:  # noqa: PTH123 read once for each box
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
