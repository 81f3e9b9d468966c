"""Finds rewards: in the entry-point group `rewardsvc.rewards` (ours register there too) and in files that are named.

Importing a reward runs somebody else's code, so this happens in the parent of the workers and in command-line tools,
never in the web process. A reward that cannot be offered is listed as unavailable with the reason; the rest works.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import msgspec

from rewardsvc.contract import CaseInfo, Model, ResourceInfo, RewardInfo
from rewardsvc.errors import RewardFault
from rewardsvc.reward import Case, Cpu, Io, PerGroup, PerRollout, Reward

ENTRY_POINTS = "rewardsvc.rewards"
_FILE_MODULE = "rewardsvc_file_"
_NONE: Mapping[str, Reward] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Found:
    """A reward that somebody announced; its code has not run yet."""

    name: str
    wheel: str
    source: metadata.EntryPoint | Path

    @property
    def label(self) -> str:
        """What tells it from any other, also from one of the same name."""
        return str(self.source) if isinstance(self.source, Path) else f"{self.name} of {self.wheel}"


@dataclass(frozen=True)
class Loaded:
    """A catalogue entry, with the reward itself when it can be offered."""

    found: Found
    info: RewardInfo
    reward: Reward | None


def find(files: Iterable[str]) -> Iterator[Found]:
    """Everything announced, entry points first, by name. A file is announced under its stem, and once."""
    for entry in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda entry: entry.name):
        wheel = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
        yield Found(entry.name, wheel, entry)
    for file in dict.fromkeys(files):
        path = Path(file)
        yield Found(path.stem, str(path.name), path)


def load(found: Found, broken: str | None = None, taken: Mapping[str, Reward] = _NONE) -> Loaded:
    """Imports a reward and checks its declaration. Never raises for what the reward's author did wrong.

    `broken` says why the code must not run (it killed an earlier parent); `taken` are the rewards loaded before it.
    """
    try:
        if broken:
            raise RewardFault(broken)
        reward = _import(found)()
        check(type(reward))
        if reward.name in taken:
            other = _origin(type(taken[reward.name]))
            raise RewardFault(
                f"the name {reward.name!r} is already taken: {found.label} and {other} both have it; "
                "give one another `name`, or name one of the two only"
            )
        reward.warm()
        return Loaded(found, _plain(describe(type(reward), found.wheel)), reward)
    except RewardFault as fault:
        because = str(fault)
    except (Exception, SystemExit) as error:  # noqa: BLE001 the boundary to somebody else's import-time code
        because = f"importing it failed: {type(error).__name__}: {str(error)[:300]}"
    return Loaded(found, _unavailable(found, because), None)


def _origin(cls: type[Reward]) -> str:
    """Where a loaded reward came from: its file, or the name under which anybody can import it."""
    return inspect.getfile(cls) if cls.__module__.startswith(_FILE_MODULE) else f"{cls.__module__}.{cls.__name__}"


def entries(loaded: Sequence[Loaded]) -> list[RewardInfo]:
    """The catalogue. What cannot be offered takes no name from what can: it is listed under a longer one instead."""
    taken = {each.info.name for each in loaded if each.reward is not None}
    for each in loaded:
        if each.reward is None:
            name, more = each.found.name, each.found.wheel
            each.info.name = next(free for free in (name, f"{name} of {more}", each.found.label) if free not in taken)
            taken.add(each.info.name)
    return [each.info for each in loaded]


def _plain(info: RewardInfo) -> RewardInfo:
    """The entry as it will arrive in other processes. Raises `RewardFault` when something in it is not plain data."""
    try:
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(info), type=RewardInfo)
        msgspec.json.encode(decoded)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RewardFault(f"its declaration is not plain data: {error}") from None
    return decoded


def _import(found: Found) -> type[Reward]:
    if isinstance(found.source, Path):
        return reward_class(import_file(found.source))
    loaded = found.source.load()
    if not (inspect.isclass(loaded) and issubclass(loaded, Reward)):
        raise RewardFault(f"the entry point {found.name!r} must name a subclass of PerRollout or PerGroup")
    return loaded


def import_file(path: Path) -> ModuleType:
    """Runs a Python file as a module of its own. Raises `RewardFault` when there is no such file."""
    if not path.is_file():
        raise RewardFault(f"there is no file {path}; correct REWARDSVC_REWARD_FILES")
    name = f"{_FILE_MODULE}{path.stem}_{crc32(bytes(path.resolve())):08x}"  # two folders may have files of one name
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise RewardFault(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def reward_class(module: ModuleType) -> type[Reward]:
    """The one reward class that a module defines itself. Raises `RewardFault` when there is none or more than one."""
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Reward) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise RewardFault(f"the file must define exactly one reward class, it defines {len(classes)}")
    return classes[0]


def check(cls: type[Reward]) -> None:
    """Raises `RewardFault` saying what to change when a class does not keep the plugin contract."""
    for fault in _faults(cls):
        raise RewardFault(f"{cls.__name__}: {fault}")


def _faults(cls: type[Reward]) -> Iterator[str]:
    method = getattr(cls, "score_group" if issubclass(cls, PerGroup) else "score", None)
    if not isinstance(getattr(cls, "name", None), str) or not _NAME.fullmatch(cls.name):
        yield "set `name` to lower-case letters, digits and underscores, starting with a letter"
    if not isinstance(getattr(cls, "version", None), str) or not cls.version:
        yield "set `version` to a string such as '1'; it is part of the cache key"
    if not issubclass(cls, (PerRollout, PerGroup)) or method in (PerRollout.score, PerGroup.score_group):
        yield "subclass PerRollout and write `score`, or PerGroup and write `score_group`"
    elif inspect.iscoroutinefunction(method) != isinstance(cls.resources, Io):
        yield "a reward with `resources = Io(…)` is `async def`; one with `Cpu(…)` is not"
    if not (inspect.isclass(cls.Params) and issubclass(cls.Params, Model)):
        yield "`Params` must subclass rewardsvc.reward.Model"
    low, high = cls.range
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        yield "`range` must be two finite numbers, the lower one first"
    if not (inspect.getdoc(cls) or "").strip() or cls.__doc__ is None:
        yield "write a docstring; its first line is the catalogue text"
    yield from _resource_faults(cls.resources)
    for case in cls.cases:
        if len(case.completions) != len(case.rewards) or not case.completions:
            yield f"a case needs as many rewards as completions, and at least one: {case!r:.200}"


def _resource_faults(resources: object) -> Iterator[str]:
    if not isinstance(resources, (Cpu, Io)):
        yield "set `resources` to Cpu(…) or Io(…)"
    elif not (math.isfinite(resources.item_timeout) and resources.item_timeout > 0):
        yield "`item_timeout` must be a number of seconds above zero"
    elif resources.memory_mb < 1:
        yield "`memory_mb` must be at least 1"
    elif isinstance(resources, Io) and resources.concurrency < 1:
        yield "`concurrency` must be at least 1"


def describe(cls: type[Reward], wheel: str) -> RewardInfo:
    """The catalogue entry of a class that passed `check`."""
    summary, _, description = (inspect.getdoc(cls) or "").partition("\n")
    return RewardInfo(
        name=cls.name,
        version=cls.version,
        summary=summary.strip(),
        description=description.strip(),
        range=(float(cls.range[0]), float(cls.range[1])),
        per_group=issubclass(cls, PerGroup),
        deterministic=cls.deterministic,
        resources=ResourceInfo(
            cls.resources.kind,
            cls.resources.item_timeout,
            cls.resources.memory_mb,
            cls.resources.concurrency if isinstance(cls.resources, Io) else 1,
        ),
        wheel=wheel,
        params=msgspec.json.schema(cls.Params),
        reference=msgspec.json.schema(cls.Reference),
        parts=list(cls.parts),
        reasons=dict(cls.reasons),
        cases=[_case(case) for case in cls.cases],
    )


def _case(case: Case) -> CaseInfo:
    return CaseInfo(
        kind=case.kind,
        rollouts=list(case.completions),
        rewards=list(case.rewards),
        reference=case.reference,
        prompt=case.prompt,
        params=dict(case.params or {}),
        reason=case.reason,
        status=case.status,
        why=case.why,
    )


def _unavailable(found: Found, because: str) -> RewardInfo:
    nothing: dict[str, Any] = {}
    return RewardInfo(
        name=found.name,
        version="",
        summary="",
        description="",
        range=(0.0, 1.0),
        per_group=False,
        deterministic=False,
        resources=ResourceInfo("cpu", 0.0, 0),
        wheel=found.wheel,
        params=nothing,
        reference=nothing,
        parts=[],
        reasons={},
        cases=[],
        available=False,
        unavailable_because=because,
    )
