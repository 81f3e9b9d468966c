"""Values as msgpack: compact between processes, and the same bytes for equal values where those are hashed.

JSON allows integers of any length, msgpack only those of 64 bits; longer ones travel as an extension.
"""

from __future__ import annotations

from typing import Any

import msgspec

_BIG_INTEGER = 1  # msgpack extension type

encode = msgspec.msgpack.Encoder().encode
_encode_stable = msgspec.msgpack.Encoder(order="deterministic").encode


def encode_stable(value: Any) -> bytes:
    """Equal values give equal bytes, whatever the order of their keys."""
    try:
        return _encode_stable(value)
    except OverflowError:
        return _encode_stable(_with_extensions(msgspec.to_builtins(value)))


def _with_extensions(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_extensions(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_extensions(item) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_INTEGER, str(value).encode())
    return value


def big_integer(code: int, data: memoryview) -> int:
    """The `ext_hook` of decoders that read what `encode_stable` wrote. Raises ValueError for another extension."""
    if code != _BIG_INTEGER:
        raise ValueError(f"unknown extension type {code}")
    return int(bytes(data))
