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
    parts = (actual, *map(_fields, _items(actual, "selectors")))
    same = _agree_but_for_the_name(user, parts)
    return (
        *_flag_differences(user, {_text(flag) for flag in _items(actual, "flags")}),
        *_password_differences(user, {_text(digest) for digest in _items(actual, "passwords")}),
        *(() if same else _differing_permissions(user.rules, parts, categories)),
    )


_NAME = "\0"
_PART, _FIELD = "\x1d", "\x1e"
_TOLD = ("commands", "keys", "channels", "databases")


def _agree_but_for_the_name(user: AclUser, parts: Sequence[Mapping[str, object]]) -> bool:
    """Whether nothing differs in what is permitted, found out once for all tenants with the same
    rules: only the tenant's name differs in them, and is taken out of both sides.

    False says nothing: what cannot be compared so is compared otherwise.
    """
    tag = "{" + ".".join(user.name.split(".")[1:3]) + "}"
    told = [[part.get(name, b"") for name in _TOLD] for part in parts]
    if not all(isinstance(value, bytes) for values in told for value in values):
        return False
    wanted = "\n".join(user.rules)
    found = _PART.join(_FIELD.join(map(_text, values)) for values in told)
    if _NAME in wanted or _NAME in found or found.count(_PART) != len(parts) - 1:
        return False
    return _agree(wanted.replace(tag, _NAME), found.replace(tag, _NAME))


@lru_cache(maxsize=64)
def _agree(wanted: str, found: str) -> bool:
    parts = [dict(zip(_TOLD, part.split(_FIELD), strict=False)) for part in found.split(_PART)]
    by_category = any("@" in part["commands"].removeprefix("-@all") for part in parts)
    if by_category or found.count(_FIELD) != len(parts) * (len(_TOLD) - 1):
        return False
    present = [{name: value for name, value in part.items() if value} for part in parts]
    return not _differing_permissions(wanted.split("\n"), present, MappingProxyType({}))


def _differing_permissions(
    rules: Sequence[str], parts: Sequence[Mapping[str, object]], categories: Categories
) -> tuple[str, ...]:
    wanted = _permissions_of_rules(rules)
    found = tuple(_permissions(fields, categories) for fields in parts)
    return (
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
