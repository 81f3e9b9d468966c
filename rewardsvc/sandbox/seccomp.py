"""The filter between a program and the kernel: `sandboxes/seccomp.toml` as classic BPF.

The list of calls becomes a binary search, so that a call costs seven comparisons at most and the kernel's table of
calls that are always allowed is computed quickly at every start of a program.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence

_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_FROM, _JUMP_BITS, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_KILL, _FAIL, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NAMESPACES = 0x7E020080
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET and NEWTIME."""
_FAMILIES = (1, 2, 10)
"""AF_UNIX, AF_INET, AF_INET6: of use without a network. Others are ways around it (vsock, packet, netlink, alg)."""
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX type into a terminal."""

Code = list[bytes]


def _instruction(code: int, operand: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, operand)


def _answer(value: int) -> Code:
    return [_instruction(_RETURN, value)]


_PERMITTED = _answer(_ALLOW)
_REFUSED = _answer(_FAIL | errno.EPERM)
_UNKNOWN = _answer(_FAIL | errno.ENOSYS)


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS_AT + 8 * index)


def _one_of(values: Sequence[int], then: Code, otherwise: Code) -> Code:
    """Looks at a loaded argument; both answers are one instruction long."""
    tests = [_instruction(_JUMP_EQUAL, value, len(values) - at) for at, value in enumerate(values)]
    return [*tests, *otherwise, *then]


_LOOKED_AT: dict[str, Code] = {
    "clone": [_argument(0), _instruction(_JUMP_BITS, _NAMESPACES, 0, 1), *_REFUSED, *_PERMITTED],
    "socket": [_argument(0), *_one_of(_FAMILIES, _PERMITTED, _answer(_FAIL | errno.EAFNOSUPPORT))],
    "ioctl": [_argument(1), *_one_of(_TERMINAL_INPUT, _REFUSED, _PERMITTED)],
    "clone3": _UNKNOWN,
}


def compile_filter(policy: Mapping[str, object], machine: str) -> bytes:
    """The filter for a machine ("x86_64" or "aarch64"), ready for `kernel.filter_calls`. Raises KeyError for others."""
    architecture = _ARCHITECTURES[machine]
    numbers: Mapping[str, int] = policy["numbers"][machine]  # type: ignore[index]
    answers: dict[int, Code] = {}
    for names, code in ((policy["refuse"], _REFUSED), (policy["allow"], _PERMITTED)):
        answers.update((numbers[name], code) for name in names if name in numbers)  # type: ignore[attr-defined]
    answers.update((numbers[name], code) for name, code in _LOOKED_AT.items() if name in numbers)
    head = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_JUMP_EQUAL, architecture, 1),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    return b"".join(head + _search(_stretches(answers)))


def _stretches(answers: Mapping[int, Code]) -> list[tuple[int, Code]]:
    """The first number of every stretch of calls with the same answer, in order, from zero to the last number."""
    found: list[tuple[int, Code]] = []
    for number in range(max(answers) + 2):
        code = answers.get(number, _UNKNOWN)
        if not found or found[-1][1] is not code:
            found.append((number, code))
    return found


def _search(stretches: Sequence[tuple[int, Code]]) -> Code:
    if len(stretches) == 1:
        return stretches[0][1]
    middle = len(stretches) // 2
    below, above = _search(stretches[:middle]), _search(stretches[middle:])
    return [_instruction(_JUMP_FROM, stretches[middle][0], 0, 1), _instruction(_JUMP, len(below)), *below, *above]
