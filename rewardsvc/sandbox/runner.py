"""A runner: one job at a time, from the first byte to the last frame. There is one for each core.

It is forked from the supervisor, holds the templates of its boxes, and answers the client directly over the socket that
came with the job. A job that fails by our fault is ended with a frame that says so, and the templates start anew.
"""

from __future__ import annotations

import contextlib
import os
import socket
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from rewardsvc.sandbox import kernel, wire
from rewardsvc.sandbox.boxes import Broken, Template
from rewardsvc.sandbox.job import Parcel
from rewardsvc.sandbox.languages import Language
from rewardsvc.sandbox.submission import ENVIRONMENT, Bench, Submission
from rewardsvc.sandbox.watching import Abandoned

_FIRST_USER = 2_100_000_000
"""Each runner's boxes belong to a user that no machine has."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A language that is installed, and what its binaries are cached under."""

    language: Language
    fingerprint: str


@dataclass(frozen=True, slots=True)
class World:
    """What every template needs to know to make its world."""

    filter: bytes
    place: str
    extra: dict[str, str]
    """More directories to show: where they are seen, and where they are."""


class Runner:
    """Serves the supervisor at the other end of `control` until it hangs up."""

    def __init__(self, number: int, control: socket.socket, bench: Bench, world: World, offers: Mapping[str, Offer]):
        self._control, self._bench, self._offers = control, bench, offers
        base = {
            "filter": world.filter.hex(),
            "place": world.place,
            "extra": world.extra,
            "user": _FIRST_USER + number,
        }
        self._templates = {
            offer.language.runtime: Template({**base, "modules": offer.language.modules}, ENVIRONMENT)
            for offer in offers.values()
        }

    def serve(self) -> NoReturn:
        """Never returns."""
        kernel.die_with_parent()
        try:
            while (message := wire.receive(self._control)) is not None:
                parcel, reply = message.descriptors
                with socket.socket(fileno=reply) as client:
                    self._do(parcel, client, message.fields["work"])
                wire.send(self._control, {"idle": True})
        except Exception:  # noqa: BLE001 the end of a process: nobody else would ever hear of it
            traceback.print_exc()
        finally:
            os._exit(0)

    def _do(self, descriptor: int, client: socket.socket, work: str) -> None:
        try:
            parcel = Parcel(descriptor)
            offer = self._offers[parcel.language]
            template = self._templates[offer.language.runtime]
            submission = Submission(self._bench, offer.language, offer.fingerprint, parcel, client)
            submission.run(template, submission.make_header if work == "header" else submission.make_results)
        except (Abandoned, BrokenPipeError, ConnectionResetError):
            pass
        except (Broken, OSError, ValueError, KeyError) as error:
            with contextlib.suppress(OSError):
                wire.send_frame(client, {"broken": f"{type(error).__name__}: {error}"})
        finally:
            os.close(descriptor)
