"""The one clock of the service: monotonic, and the same for the front, its workers and the times in orders."""

from __future__ import annotations

import time

now_ns = time.monotonic_ns
"""Nanoseconds since some fixed moment, which all processes of this machine share."""
