"""What a server's or a socket's error means to the operator."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

import redis.exceptions

from memtenant.errors import MemtenantError, StoreRefused, StoreUnavailable

__all__ = ["required", "required_all", "shown", "translated"]

Reply = TypeVar("Reply")

_UNAVAILABLE = {
    "ASK": "the slot moves to another node",
    "BUSY": "a script keeps it busy",
    "CLUSTERDOWN": "its Cluster is down",
    "LOADING": "it still loads its data",
    "MASTERDOWN": "it has lost its primary",
    "MOVED": "the slot is on another node now",
    "NOREPLICAS": "it lacks the replicas that it needs for writes",
    "TRYAGAIN": "it asks to try again",
    "UNBLOCKED": "it changed its role",
}

_ARGUMENTS = re.compile(r",? with args beginning with.*", re.DOTALL)
_HASH = re.compile(r"[0-9a-fA-F]{16,}")


def shown(error: BaseException) -> str:
    """The server's words without what it quotes of the command's arguments or of a hash."""
    first = str(error).partition("\n")[0]
    return _HASH.sub("…", _ARGUMENTS.sub("", first))


def required(reply: Reply, node: object) -> Reply:
    """The reply of ``node``, which names it; an error reply is raised as memtenant's own."""
    if isinstance(reply, redis.exceptions.ResponseError):
        raise translated(reply, str(node))
    return reply


def required_all(replies: Iterable[Reply], node: object) -> list[Reply]:
    """As `required`, of each."""
    return [required(reply, node) for reply in replies]


def translated(error: BaseException, node: str) -> MemtenantError:
    """The error as memtenant's own: who refused, why, and what to do. Never shows arguments."""
    if isinstance(error, MemtenantError):
        return error
    code = _code(error)
    detail = shown(error)
    if code == "WRONGPASS":
        return StoreRefused(
            f"{node} refused the operator's login (username or password). Correct the Secret of "
            "adminSecretRef, or make the user with the output of `memtenant store acl`",
            reason="StoreWrongPassword",
        )
    if code == "NOAUTH":
        return StoreRefused(
            f"{node} wants a login and got none: set username and password in the Secret of "
            "adminSecretRef",
            reason="StoreNoLogin",
        )
    if code == "NOPERM":
        return StoreRefused(
            f"{node}: the operator's user lacks a permission: {detail}. `memtenant store acl` "
            "prints what it needs",
            reason="StorePermissionMissing",
        )
    if code == "READONLY":
        return StoreUnavailable(f"{node} is a replica now, not the primary", reason="NotPrimary")
    if code == "OOM":
        return StoreRefused(
            f"{node} is full (maxmemory): raise maxmemory or free memory", reason="StoreFull"
        )
    if code == "MISCONF":
        return StoreRefused(
            f"{node} refuses writes because it cannot save to disk: {detail}",
            reason="StoreCannotSave",
        )
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{node} cannot answer now: {_UNAVAILABLE[code]}")
    if isinstance(error, redis.exceptions.ResponseError):
        return StoreRefused(f"{node} refused a command: {detail}")
    if isinstance(error, (redis.exceptions.TimeoutError, TimeoutError)):
        return StoreUnavailable(f"{node} did not answer in time", reason="StoreTimeout")
    return StoreUnavailable(f"{node} cannot be reached: {detail or type(error).__name__}")


# redis-py strips the code of the errors that it has a class for.
_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (redis.exceptions.ReadOnlyError, "READONLY"),
    (redis.exceptions.NoPermissionError, "NOPERM"),
    (redis.exceptions.OutOfMemoryError, "OOM"),
    (redis.exceptions.BusyLoadingError, "LOADING"),
    (redis.exceptions.MasterDownError, "MASTERDOWN"),
    (redis.exceptions.TryAgainError, "TRYAGAIN"),
    (redis.exceptions.MovedError, "MOVED"),
    (redis.exceptions.AskError, "ASK"),
    (redis.exceptions.ClusterDownError, "CLUSTERDOWN"),
)


def _code(error: BaseException) -> str:
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, redis.exceptions.AuthenticationError):
        return "NOAUTH" if "required" in str(error) else "WRONGPASS"
    first = str(error).partition(" ")[0]
    return first if first.isupper() else ""
