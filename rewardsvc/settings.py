"""The only reader of the environment: every setting of the service, with its default and what it is for.

Each field is read from `REWARDSVC_<NAME>`; command-line flags override it. `rewardsvc config` prints what is in force.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rewardsvc.errors import SettingsFault

PREFIX = "REWARDSVC_"
CLIENT_KEY = f"{PREFIX}API_KEY"
"""The key that commands which call a service send with them."""
_HASHED = "sha256:"
_MISSPELT = 0.75
Names = Annotated[tuple[str, ...], NoDecode]


class Settings(BaseSettings):
    """How one service runs. Sizes are in the unit that the name ends in, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on; beyond loopback only with a key.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    api_keys: SecretStr = Field(
        default=SecretStr(""),
        description="Accepted keys, separated by commas; each as it is or as `sha256:` and its hex digest.",
    )
    quota_per_minute: int = Field(
        default=0,
        ge=0,
        description="Groups that each key may send in a minute; more are refused with 429. 0: no quota.",
    )
    insecure: bool = Field(default=False, description="Listen beyond loopback without a key.")

    workers: int = Field(default_factory=lambda: len(os.sched_getaffinity(0)), ge=1, description="Warm cpu workers.")
    reward_files: Names = Field(default=(), description="Python files with a reward each, separated by commas.")
    required_rewards: Names = Field(default=(), description="Rewards without which the service is not ready.")
    recycle_items: int = Field(default=20_000, ge=1, description="A worker is replaced after so many items.")
    recycle_mb: int = Field(default=512, ge=1, description="A worker is replaced after growing by so much.")
    worker_output: Literal["discard", "show"] = Field(
        default="discard", description="What becomes of text that a reward's code prints; it may quote rollouts."
    )

    cache_mb: int = Field(default=128, ge=0, description="Memory for finished verdicts.")
    max_body_mb: int = Field(default=32, ge=1, description="Largest body, also after inflation.")
    max_groups: int = Field(default=4_096, ge=1, description="Groups under way at once; more are refused with 503.")
    max_waiting_mb: int = Field(
        default=512, ge=1, description="Bodies held in memory at once; more are refused with 503."
    )

    header_seconds: float = Field(default=10.0, gt=0, description="Time that a client has to send its request's head.")
    body_seconds: float = Field(default=30.0, gt=0, description="Time that a client has to send the body.")
    reply_seconds: float = Field(default=30.0, gt=0, description="Time that a client has to take the reply.")
    keep_alive_seconds: int = Field(default=75, ge=0, description="How long an idle connection is kept.")
    drain_seconds: float = Field(default=30.0, ge=0, description="Time for groups under way after SIGTERM.")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    otlp_endpoint: str | None = Field(
        default=None, description="OTLP/HTTP address for traces; none are made without it."
    )

    @field_validator("reward_files", "required_rewards", mode="before")
    @classmethod
    def _split(cls, value: str | tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def key_hashes(self) -> tuple[bytes, ...]:
        """SHA-256 digests of the accepted keys. Raises `SettingsFault` for a digest that is none."""
        keys = [key.strip() for key in self.api_keys.get_secret_value().split(",")]
        return tuple(_digest(key) for key in keys if key)

    def refuse_if_exposed(self) -> None:
        """Raises `SettingsFault` when the service would listen beyond loopback without a key."""
        if self.insecure or self.key_hashes() or _is_loopback(self.host):
            return
        raise SettingsFault(
            f"Refusing to listen on {self.host} without a key: whoever reaches this machine could use the service.\n"
            "Set REWARDSVC_API_KEYS, listen on 127.0.0.1, or say --insecure if the network is trusted."
        )

    def absolute_reward_files(self) -> list[str]:
        """The named files as absolute paths, so that they mean the same in every process."""
        return [str(Path(file).resolve()) for file in self.reward_files]


def _digest(key: str) -> bytes:
    if not key.startswith(_HASHED):
        return sha256(key.encode()).digest()
    try:
        digest = bytes.fromhex(key.removeprefix(_HASHED))
    except ValueError:
        digest = b""
    if len(digest) != sha256().digest_size:
        raise SettingsFault("REWARDSVC_API_KEYS: after `sha256:` there must be 64 hexadecimal digits")
    return digest


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unread_variables(names: Iterable[str]) -> dict[str, str | None]:
    """The names with our prefix that nothing reads, each with the setting that it must be a misspelling of, if any."""
    known = {name.upper() for name in Settings.model_fields}
    given = {name: name.upper().removeprefix(PREFIX) for name in names if name.upper().startswith(PREFIX)}
    return {
        name: next((PREFIX + near for near in difflib.get_close_matches(short, known, 1, _MISSPELT)), None)
        for name, short in given.items()
        if short not in known and name.upper() != CLIENT_KEY
    }


def refuse_misspelt(names: Iterable[str]) -> None:
    """Raises `SettingsFault` for variables that are nearly settings: one that was meant would not be in force."""
    misspelt = {name: near for name, near in unread_variables(names).items() if near}
    if misspelt:
        raise SettingsFault("\n".join(f"{name} is no setting. Did you mean {near}?" for name, near in misspelt.items()))


def worker_environment() -> dict[str, str]:
    """The environment for processes that run rewards: this one without the service's own secrets."""
    return {name: value for name, value in os.environ.items() if name != f"{PREFIX}API_KEYS"}
