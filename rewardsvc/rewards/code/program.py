"""Takes the program out of a completion: the last complete fenced block of the language, after the reasoning."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

from rewardsvc.extract import after_reasoning, fenced_blocks

Where = Literal["block", "whole"]


class Program(NamedTuple):
    """A source and where it stands in the completion, in characters."""

    source: bytes
    start: int
    end: int
    method: str

    def told(self) -> dict[str, Any]:
        """What evidence says about it."""
        code = hashlib.sha256(self.source).hexdigest()
        return {"method": self.method, "start": self.start, "end": self.end, "sha256": code}


def find(completion: str, names: Collection[str], where: Where = "block") -> Program | None:
    """The program, or None. `names` are those of the language, in lower case.

    - `block`: the last complete fenced block after the reasoning that is labelled with the language; where none is, the
      last without a label. A block of another language is no program, nor is one that never ends.
    - `whole`: the completion as it is, for callers who have taken the program out themselves.
    """
    program = _whole(completion) if where == "whole" else _last_block(completion, names)
    return program if program is not None and program.source.strip() else None


def _whole(completion: str) -> Program:
    return Program(_encoded(completion), 0, len(completion), "whole")


def _last_block(completion: str, names: Collection[str]) -> Program | None:
    region = after_reasoning(completion)
    if region is None:
        return None
    blocks = [block for block in fenced_blocks(region.text) if block.complete]
    labelled = [block for block in blocks if block.label in names]
    unlabelled = [block for block in blocks if not block.label]
    for method, found in (("labelled_block", labelled), ("block", unlabelled)):
        if found:
            last = found[-1]
            return Program(_encoded(last.text), region.start + last.start, region.start + last.end, method)
    return None


def _encoded(text: str) -> bytes:
    """A lone surrogate has no bytes; it becomes a question mark, as it could be no part of a working program."""
    return text.encode(errors="replace")
