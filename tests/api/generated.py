"""Generated objects: valid ones, slightly broken ones and hostile ones, from the schemas.

The strategies read the structural schemas, so that a new field is covered the day it is added.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from hypothesis import strategies as st

from memtenant.api import API_VERSION
from memtenant.api.reporting import SCHEDULE_PATTERN
from memtenant.api.schema import structural_schema

Json = Any

_PERIODS = ["1s", "90s", "10m", "11m", "3m", "1h", "12h", "1d", "30d", "31d", "2w", "1mo", "12mo"]
_PERIODS += ["1y", "6y", "7y", "2555d", "999y", "1000y", "1001y", "9999999y", "9999999s"]
_QUANTITIES: list[Json] = ["1Mi", "1048575", 1048576, "512Mi", "2Gi", "1.5G", "1000m", "1e6", "1E7"]
_QUANTITIES += [
    "2e6",
    "0.5Gi",
    "1048576000m",
    "1048575999m",
    10**18,
    "9Ei",
    "99Ei",
    "1e99",
    "1.0Mi",
]
_SCHEDULES = ["0 3 * * MON", "@daily", "@never", "*/15 0-6,12 1 JAN-MAR 1-5", "60 * * * *"]
_SCHEDULES += [
    "0 24 * * *",
    "5/10 3 31 2 0",
    "0 0 * * 7",
    "0 0 0 * *",
    "00 09 08 12 *",
    "* * * * SON",
]
_TEXTS = ["", "a", "acme", "a" * 40, "a" * 41, "a" * 63, "a" * 64, "A", "a.b", "-a", "a-", "a\n"]
_TEXTS += ["ä", "é" * 40, "a b", "a/b", "30d\n", " 30d", "30D", "0d", "3 d", "1.5d", "Mi", "-1Gi"]
_TEXTS += ["1Gi ", "+1Gi", "1K", "localhost:6379", "host:0", "host:99999", "[::1]:6379", "::1:6379"]
_TEXTS += ["2026-02-30T00:00:00Z", "2024-02-29T23:59:59+01:00", "2100-02-29T00:00:00Z", "\u0000"]
_TEXTS += ["2000-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-01-31", "All", "Selector", "None"]
_TEXTS += ["Minimal", "Moderate", "Strict", "Enabled", "Disabled", "null", "true", "x" * 5000]


def happens(percent: int) -> st.SearchStrategy[bool]:
    """True so often. From the middle of a range: Hypothesis likes to draw its ends."""
    return st.integers(0, 999).map(lambda drawn: 400 <= drawn < 400 + 10 * percent)


HOSTILE: st.SearchStrategy[Json] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_TEXTS),
    st.sampled_from([0, 1, -1, 2**31, 2**53, 2**63 - 1, -(2**63), 10**19, 10**30]),
    st.sampled_from([0.0, 1.0, 10.0, 0.5, -1.5, 1e3, 1e30, 5.0e8, 1048576.0]),
    st.sampled_from([[], {}, [None], {"a": None}, [[]], [{}], {"name": "a"}, ["a", "a"], [1, 1]]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
"""Values of every JSON type, near the edges that parsers disagree about."""


def _strings(schema: Mapping[str, Any]) -> st.SearchStrategy[Json]:
    pattern = schema.get("pattern")
    if pattern is None:
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    longest = schema.get("maxLength", 100)
    # Anchored by `\Z`: Python's `$` lets a newline through, which the hostile texts try.
    made = st.from_regex(pattern.removesuffix("$") + r"\Z").filter(lambda it: len(it) <= longest)
    if "(s|m|h|d|w|mo|y)" in pattern:
        return st.sampled_from(_PERIODS) | made
    if pattern == SCHEDULE_PATTERN:
        return st.sampled_from(_SCHEDULES) | made
    if pattern.startswith("^[12][0-9]{3}-"):
        return st.sampled_from(["2026-01-31T09:30:00Z", "2024-02-29T00:00:00.5+01:00"]) | made
    return made


def _valid(schema: Mapping[str, Any], broken: int) -> st.SearchStrategy[Json]:
    """Values that fit the types and bounds; rules may still refuse them."""
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from(_QUANTITIES) | _strings(schema)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            return _strings(schema)
        case "integer":
            low, high = schema.get("minimum", -10), schema.get("maximum", 10**6)
            return st.integers(low, high) | st.sampled_from([low, high])
        case "boolean":
            return st.booleans()
        case "array":
            key = {"set": repr, "map": lambda it: repr(_key(it, schema))}.get(
                schema.get("x-kubernetes-list-type", "")
            )
            return st.lists(
                values(schema["items"], broken),
                min_size=schema.get("minItems", 0),
                max_size=min(4, schema["maxItems"]),
                unique_by=key,
            )
        case _ if "additionalProperties" in schema:
            keys = st.sampled_from(["team", "example.com/team", "a" * 63, "a" * 64, "-", ""])
            return st.dictionaries(keys, values(schema["additionalProperties"], broken), max_size=3)
        case _:
            return _objects(schema, broken)


def _key(item: Json, schema: Mapping[str, Any]) -> Json:
    name = schema["x-kubernetes-list-map-keys"][0]
    return item.get(name) if isinstance(item, dict) else item


def _objects(schema: Mapping[str, Any], broken: int) -> st.SearchStrategy[Json]:
    fields = {name: values(child, broken) for name, child in schema["properties"].items()}
    needed = {name: fields.pop(name) for name in schema.get("required", ())}
    return st.fixed_dictionaries(needed, optional=fields)


def values(schema: Mapping[str, Any], broken: int) -> st.SearchStrategy[Json]:
    """Values for a schema, each part replaced by a hostile one in so many per cent."""
    made = _valid(schema, broken)
    if not broken:
        return made

    often = happens(broken)

    @st.composite
    def perhaps_broken(draw: st.DrawFn) -> Json:
        value: Json = draw(HOSTILE if draw(often) else made)
        if isinstance(value, dict) and draw(often):
            value = dict(value)
            if value and draw(st.booleans()):
                del value[draw(st.sampled_from(sorted(value)))]
            else:
                value[draw(st.sampled_from(["name", "surprise", "Mode", "mode"]))] = draw(HOSTILE)
        return value

    return perhaps_broken()


def specs(kind: str, broken: int) -> st.SearchStrategy[Json]:
    """Specs of a kind."""
    return values(structural_schema(kind)["properties"]["spec"], broken)


@cache
def field(kind: str, name: str, broken: int) -> st.SearchStrategy[Json]:
    """Values of one field of a kind's spec."""
    return values(structural_schema(kind)["properties"]["spec"]["properties"][name], broken)


def metadata(broken: int) -> st.SearchStrategy[Json]:
    """``metadata`` that a person might write."""
    names = st.sampled_from(["acme", "a", "a" * 40])
    bad = st.sampled_from(["a" * 41, "a.b", "A", "-a", "", "a" * 254])
    texts = st.dictionaries(
        st.sampled_from(["team", "example.com/team", "Example.com/Team", "a/b/c", "", "x" * 64]),
        st.sampled_from(["", "blue", "a b", "x" * 63, "x" * 64, "ü"]),
        max_size=2,
    )
    hostile = st.fixed_dictionaries(
        {"name": names | bad},
        optional={
            "labels": texts | HOSTILE,
            "annotations": texts | HOSTILE,
            "finalizers": st.lists(
                st.sampled_from(["memtenant.dev/x", "x", "", "a b"]), max_size=2
            ),
            "surprise": HOSTILE,
            "generateName": st.sampled_from(["", "a-"]),
        },
    )
    fine = st.fixed_dictionaries({"name": names})
    return happens(broken).flatmap(lambda it: hostile if it else fine)


@cache
def objects(kind: str, broken: int) -> st.SearchStrategy[dict[str, Json]]:
    """Whole objects of a kind."""
    surprises = st.dictionaries(
        st.sampled_from(["status", "Spec", "data"]),
        HOSTILE | st.fixed_dictionaries({}, optional={"tenants": HOSTILE, "surprise": HOSTILE}),
        max_size=1,
    )
    return st.builds(
        lambda meta, spec, more: {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": meta,
            "spec": spec,
            **more,
        },
        metadata(broken),
        specs(kind, broken),
        happens(broken).flatmap(lambda it: surprises if it else st.just({})),
    )


def full(schema: Mapping[str, Any]) -> Json:
    """One valid value with every field in it."""
    if schema.get("x-kubernetes-int-or-string"):
        return "512Mi"
    if "enum" in schema:
        return "Selector" if "Selector" in schema["enum"] else schema["enum"][0]
    match schema["type"]:
        case "object" if "additionalProperties" in schema:
            return {"team": "blue"}
        case "object":
            return {name: full(child) for name, child in schema["properties"].items()}
        case "array":
            return [full(schema["items"])]
        case "integer":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _ if schema.get("format") == "date-time":
            return "2026-01-31T09:30:00Z"
        case _:
            return schema.get("default") or _example(schema.get("pattern", ""))


def _example(pattern: str) -> str:
    """The first of some ordinary texts that fits."""
    ordinary = ["30d", "acme", "GDPR", "a.example:6379", "2026-01-31T09:30:00Z", "@daily"]
    ordinary += ["0" * 64]
    return next(text for text in ordinary if re.search(pattern, text))


def each_part(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value below this one."""
    if path:
        yield path
    children = enumerate(value) if isinstance(value, list) else ()
    for step, child in value.items() if isinstance(value, dict) else children:
        yield from each_part(child, (*path, step))


def with_part(value: Json, path: tuple[str | int, ...], part: Json) -> Json:
    """A copy of the value in which the part at the path is another."""
    if not path:
        return part
    copy = value.copy()
    copy[path[0]] = with_part(value[path[0]], path[1:], part)
    return copy
