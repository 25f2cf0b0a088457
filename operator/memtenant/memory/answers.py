"""What an error of the server or the socket means to an agent."""

from __future__ import annotations

import re

from memtenant.errors import AccessDenied, LoginRefused, MemtenantError, StoreRefused
from memtenant.errors import StoreUnavailable as Unavailable
from memtenant.functions.refusals import function_is_absent, refusal
from memtenant.memory.wire import ErrorReply

__all__ = ["lacks_function", "login_refused", "passing", "unavailable", "value"]

_PASSING: dict[str, str] = {
    "ASK": "the tenant's slot moves to another node of its cluster",
    "BUSY": "a script keeps it busy",
    "CLUSTERDOWN": "its cluster is down",
    "LOADING": "it still loads its data",
    "MOVED": "the tenant's slot is on another node of its cluster now",
    "MASTERDOWN": "it has lost its primary",
    "NOREPLICAS": "it lacks the replicas that it needs for writes",
    "READONLY": "it is a replica now, not the primary",
    "TRYAGAIN": "it asks to try again",
    "UNBLOCKED": "it changed its role",
}
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|,? with args beginning with.*", re.DOTALL)


def value(reply: object) -> object:
    """The reply; an error reply is raised as what it means."""
    if not isinstance(reply, ErrorReply):
        return reply
    known = refusal(reply.text)
    if known is not None:
        raise known
    if reply.code == "NOPERM":
        raise AccessDenied(
            "The server's rules do not allow the agent's user what the call needs: its access was "
            "taken away or restricted, or the operator's rules are older than this SDK. See the "
            "MemoryTenant's conditions"
        )
    if reply.code == "OOM":
        raise StoreRefused(
            "The store is full (maxmemory): the platform team has to raise maxmemory or free "
            "memory; reading and deleting still work",
            reason="StoreFull",
        )
    raise StoreRefused(f"The store refused a command: {_QUOTED.sub('…', reply.text)}")


def lacks_function(reply: object) -> bool:
    """Whether the store holds no Function of the name that was called."""
    return isinstance(reply, ErrorReply) and function_is_absent(reply.text)


def passing(reply: object) -> MemtenantError | None:
    """Why the server cannot answer at the moment, if the reply says so; nothing was done then."""
    if not isinstance(reply, ErrorReply):
        return None
    what = _PASSING.get(reply.code)
    return None if what is None else _unavailable(what, "nothing was done", "StoreBusy")


def unavailable(error: Exception, sent: bool) -> MemtenantError:
    """A store that does not answer. ``sent``: a try reached the socket and may have been done."""
    done = (
        "what was sent may have been done (repeat an append with an idempotency key)"
        if sent
        else "nothing was done"
    )
    if isinstance(error, TimeoutError) or (isinstance(error, OSError) and not str(error)):
        return _unavailable("it did not answer in time", done, "StoreTimeout")
    text = _QUOTED.sub("…", str(error)).partition("\n")[0].rstrip(".")
    return _unavailable(text or type(error).__name__, done, "StoreUnavailable")


def login_refused(username: str, frozen: str) -> LoginRefused:
    """The binding's credentials are not valid (any more), and no newer ones arrived."""
    why = (
        f"The mounted binding never changes: {frozen}"
        if frozen
        else "The operator rotated or revoked them, or switched the tenant off. See the "
        "MemoryTenant's conditions; where they are fine, mount the binding Secret again"
    )
    return LoginRefused(f"The store refuses the credentials of {username}. {why}")


def _unavailable(what: str, done: str, reason: str) -> Unavailable:
    return Unavailable(
        f"The tenant's store cannot be used now: {what}; {done}. Try again later; if it lasts, "
        "the platform team has to look at the MemoryStore",
        reason=reason,
    )
