"""What of an ACL user on a server is not as `memtenant.rules.acl` rendered it.

ACL GETUSER answers in as many forms as there are servers and protocols; here they become sets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from memtenant.rules.acl import AclUser

__all__ = ["Categories", "GetUserReply", "differences"]

GetUserReply = Sequence[object] | Mapping[object, object] | None
"""What ACL GETUSER answers: a flat list in RESP2, a map in RESP3, nil for an unknown user."""


Categories = Mapping[str, frozenset[str]]
"""The commands of each ACL category, without ``@`` and in lower case (ACL CAT)."""


def differences(
    user: AclUser, reply: GetUserReply, categories: Categories = MappingProxyType({})
) -> tuple[str, ...]:
    """What of the user on the server is not as it should be, in words; empty if nothing.

    Compares as sets: servers order commands as they like, Redis tells ``sanitize-payload`` and
    Valkey ``databases``. Redis 7.0 does not keep rules but describes their effect in categories
    (``+@hash -hset …``), which ``categories`` of that server resolves; an unknown category is a
    difference. Password hashes are compared but never shown.
    """
    if reply is None:
        return ("user is missing",)
    actual = _fields(reply)
    wanted = _permissions_of_rules(user.rules)
    found = tuple(
        _permissions(fields, categories)
        for fields in (actual, *map(_fields, _items(actual, "selectors")))
    )
    return (
        *_flag_differences(user, {_text(flag) for flag in _items(actual, "flags")}),
        *_password_differences(user, {_text(digest) for digest in _items(actual, "passwords")}),
        *_permission_differences("root", {wanted[0]}, {found[0]}),
        *_permission_differences("selector", set(wanted[1:]), set(found[1:])),
    )


@dataclass(frozen=True, slots=True)
class _Permissions:
    commands: frozenset[str]
    patterns: frozenset[str]
    channels: frozenset[str]
    databases: str

    def __str__(self) -> str:
        return " ".join([*sorted(self.patterns), *sorted(self.channels), *sorted(self.commands)])


_ALL_DATABASES = "alldbs"


def _permissions(fields: Mapping[str, object], categories: Categories) -> _Permissions:
    return _Permissions(
        commands=_effect(_text(fields.get("commands", "")), categories),
        patterns=frozenset(map(_pattern, _words(fields.get("keys", "")))),
        channels=frozenset(_words(fields.get("channels", ""))),
        databases=_text(fields.get("databases", _ALL_DATABASES)),
    )


def _permissions_of_rules(rules: Sequence[str]) -> tuple[_Permissions, ...]:
    root = [rule for rule in rules if not rule.startswith("(")]
    selectors = [rule.strip("()").split() for rule in rules if rule.startswith("(")]
    return tuple(
        _Permissions(
            commands=frozenset(rule for rule in part if rule[0] == "+"),
            patterns=frozenset(_pattern(rule) for rule in part if rule[0] in "~%"),
            channels=frozenset(rule for rule in part if rule[0] == "&"),
            databases=_ALL_DATABASES,
        )
        for part in (root, *selectors)
    )


def _effect(rules: str, categories: Categories) -> frozenset[str]:
    """The allowed commands, as ``+command``, after these rules in their order."""
    names_categories = "@" in rules.removeprefix("-@all")
    return _evaluated(rules, categories) if names_categories else _evaluated_once(rules)


@lru_cache(maxsize=64)
def _evaluated_once(rules: str) -> frozenset[str]:
    """Thousands of users have the same few lists of commands."""
    return _evaluated(rules, MappingProxyType({}))


def _evaluated(rules: str, categories: Categories) -> frozenset[str]:
    allowed: set[str] = set()
    for rule in rules.lower().split():
        name = rule[1:]
        members = categories.get(name[1:]) if name.startswith("@") else None
        if rule == "-@all":
            allowed.clear()
        elif rule[0] == "+":
            allowed |= {rule} if members is None else {f"+{member}" for member in members}
        elif members is not None:
            allowed -= {f"+{member}" for member in members}
        elif name.startswith("@"):
            allowed.add(rule)
        else:
            allowed -= {one for one in allowed if one[1:].partition("|")[0] == name}
            allowed.discard(f"+{name}")
    return frozenset(allowed)


def _pattern(pattern: str) -> str:
    return pattern.removeprefix("%RW").removeprefix("%WR")


def _flag_differences(user: AclUser, flags: set[str]) -> Iterable[str]:
    if ("on" in flags) != user.enabled:
        yield f"user is {'off' if user.enabled else 'on'}"
    if "nopass" in flags:
        yield "user needs no password"
    if "skip-sanitize-payload" in flags:
        yield "user skips the checks of RESTORE"


def _password_differences(user: AclUser, found: set[str]) -> Iterable[str]:
    wanted = set(user.password_hashes)
    if missing := len(wanted - found):
        yield f"{missing} password(s) missing"
    if unknown := len(found - wanted):
        yield f"{unknown} password(s) that memtenant did not set"


def _permission_differences(
    what: str, wanted: set[_Permissions], found: set[_Permissions]
) -> Iterable[str]:
    for lacking in sorted(map(str, wanted - found)):
        yield f"{what} missing: {lacking}"
    for extra in sorted(map(str, found - wanted)):
        yield f"{what} not wanted: {extra}"


def _fields(reply: object) -> Mapping[str, object]:
    if isinstance(reply, Mapping):
        return {_text(key): value for key, value in reply.items()}
    if not isinstance(reply, Sequence) or isinstance(reply, (str, bytes)):
        raise TypeError("ACL GETUSER answered neither a list nor a map")
    return {_text(reply[i]): reply[i + 1] for i in range(0, len(reply) - 1, 2)}


def _items(fields: Mapping[str, object], name: str) -> Sequence[object]:
    value = fields.get(name, ())
    if isinstance(value, (set, frozenset)):
        return tuple(value)
    return value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else ()


def _words(value: object) -> Sequence[str]:
    """Patterns come as one string since Redis 7.0, and as a list from some clients."""
    if isinstance(value, (list, tuple)):
        return [word for item in value for word in _text(item).split()]
    return _text(value).split()


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
