"""The tables in docs/ that the code knows better: `python -m tests.docs.tables` writes them.

Each stands between two marks, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from memtenant.api import KINDS
from memtenant.api.fields import MOMENT_PATTERN, NAME_PATTERN, QUANTITY_PATTERN, SUBDOMAIN_PATTERN
from memtenant.api.schema import crd
from memtenant.clock import system_clock
from memtenant.controller.metrics import Metrics
from memtenant.controller.sealer_metrics import SealerMetrics
from memtenant.controller.series import declared_series
from memtenant.reconcile.outcome import Measured
from memtenant.resources.mirror import Mirror
from memtenant.resources.port import Declared, ObjectKey
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.period import PERIOD_PATTERN
from tests.docs.pages import DOCS

_PATTERNS = {
    PERIOD_PATTERN: "[period](#periods-quantities-moments)",
    QUANTITY_PATTERN: "[quantity](#periods-quantities-moments)",
    MOMENT_PATTERN: "[moment](#periods-quantities-moments)",
    NAME_PATTERN: "[name](#names)",
    SUBDOMAIN_PATTERN: "name of a Secret",
}
_COMMON_STATUS = frozenset({"observedGeneration", "conditions"})


def tables() -> dict[tuple[Path, str], str]:
    """Every table by its page and the name of its marks."""
    made = {}
    for kind in sorted(KINDS):
        made[DOCS / "resources.md", f"{kind} spec"] = spec_table(kind)
        made[DOCS / "resources.md", f"{kind} status"] = status_table(kind)
    made[DOCS / "operations.md", "metrics"] = metrics_table()
    return made


def spec_table(kind: str) -> str:
    """A row for each field that a person may write."""
    rows = [
        f"| `{path}` | {_type(schema)}{', required' if required else ''} | {_default(schema)} "
        f"| {_cell(schema['description'])} |"
        for path, schema, required in _fields(_schema(kind, "spec"), "spec")
        if not _is_shell(schema)
    ]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def status_table(kind: str) -> str:
    """A row for each field that the operator writes, but those that every kind has."""
    rows = [
        f"| `{path}` | {_cell(schema['description'])} |"
        for path, schema, _ in _fields(_schema(kind, "status"), "status")
        if path.split(".")[1].removesuffix("[]") not in _COMMON_STATUS
    ]
    return "\n".join(["| field | meaning |", "|---|---|", *rows, ""])


def metrics_table() -> str:
    """A row for each series of /metrics that is memtenant's own."""
    rows = [
        f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {_cell(meaning)} |"
        for name, labels, meaning in sorted(_metrics())
    ]
    return "\n".join(["| metric | labels | meaning |", "|---|---|---|", *rows, ""])


def marked(page: Path, name: str) -> str:
    """What stands between the marks of this name."""
    return _between(page.read_text(), name)[1]


def main() -> None:
    """Write every table to its place."""
    for (page, name), table in tables().items():
        before, _, after = _between(page.read_text(), name)
        page.write_text(f"{before}{table}{after}")


def _between(text: str, name: str) -> tuple[str, str, str]:
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    inside, found, after = rest.partition(end)
    if not found:
        raise LookupError(f"there are no marks {name!r}")
    return before + begin, inside, end + after


def _schema(kind: str, part: str) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    found: Mapping[str, Any] = schema["properties"][part]
    return found


def _fields(schema: Mapping[str, Any], above: str) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Path, schema and whether it must be there, from the top down.

    A selector and a reference are one field. What looks the same under several names is told once,
    with ``*`` for the name: ``spec.retention.*.min``.
    """
    properties = schema.get("properties", {})
    shared = []
    for name, child in properties.items():
        yield f"{above}.{name}", child, name in schema.get("required", ())
        inner = child.get("items", child)
        if _is_one_field(child) or "properties" not in inner:
            continue
        if sum(one.get("properties") == inner["properties"] for one in properties.values()) > 1:
            shared.append(inner)
        else:
            yield from _fields(inner, f"{above}.{name}{'[]' if 'items' in child else ''}")
    if shared:
        yield from _fields(shared[0], f"{above}.*")


def _is_one_field(schema: Mapping[str, Any]) -> bool:
    return _is_selector(schema) or _is_reference(schema)


def _is_selector(schema: Mapping[str, Any]) -> bool:
    return "matchLabels" in schema.get("properties", {})


def _is_reference(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("properties")) and schema["properties"].keys() <= {
        *("name", "key", "privateKey")
    }


def _is_shell(schema: Mapping[str, Any]) -> bool:
    """An object that is always there, if only by default, and only holds others."""
    return "properties" in schema and "default" in schema and not _is_one_field(schema)


def _type(schema: Mapping[str, Any]) -> str:
    if _is_selector(schema):
        return "label selector"
    if _is_reference(schema):
        inner = schema["properties"].items()
        named = (f"{key}: {one['default']}" if "default" in one else key for key, one in inner)
        return f"`{{{', '.join(named)}}}`"
    if "properties" in schema:
        return "object"
    if "additionalProperties" in schema:
        return f"map of texts, at most {schema['maxProperties']}"
    if "enum" in schema:
        return " \\| ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        inner = schema["items"]
        what = "objects" if "properties" in inner else _type(inner)
        return f"list of {what}, at most {schema['maxItems']}"
    if (pattern := schema.get("pattern")) in _PATTERNS:
        return _PATTERNS[pattern]
    match schema.get("type"):
        case "boolean":
            return "true, false"
        case "integer":
            return f"{schema['minimum']} to {schema['maximum']}"
    return f"text, at most {schema['maxLength']} characters"


def _default(schema: Mapping[str, Any]) -> str:
    if "default" not in schema:
        return ""
    default = schema["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _metrics() -> Iterator[tuple[str, tuple[str, ...], str]]:
    collectors = [
        collector
        for registry in (Metrics().registry, SealerMetrics().registry)
        for collector in registry._collector_to_names
    ]
    for collector in collectors:
        names: tuple[str, ...] = getattr(collector, "_labelnames", ())
        for family in collector.collect():
            if family.name.startswith("memtenant_"):
                suffix = "_total" if family.type == "counter" else ""
                yield family.name + suffix, names, family.documentation
    text = asyncio.run(_sample_series())
    meanings = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    for name, meaning in meanings.items():
        labels = re.search(rf"^{name}{{([^}}]*)}}", text, re.MULTILINE)
        assert labels is not None
        yield name, tuple(re.findall(r"(\w+)=", labels[1])), meaning


async def _sample_series() -> str:
    """What one tenant, one store and one policy show, with everything that they can."""
    now = system_clock.now()
    ready = [{"type": "Ready", "status": "True"}]
    tenant = Declared(
        ObjectKey.tenant("support", "acme"),
        *("uid-1", "1", 1, now),
        spec={},
        status={
            "conditions": ready,
            "access": {"mode": "ReadWrite", "since": "2026-01-31T09:30:00Z"},
            "keys": {
                "since": "2026-01-31T09:30:00Z",
                "retiring": [1],
                "remaining": 1,
                "unreadable": 0,
            },
        },
    )
    store = Declared(
        ObjectKey.store("shared"),
        *("uid-2", "2", 1, now),
        spec={},
        status={"conditions": ready, "nodes": [{"role": "Primary", "acl": "InSync"}]},
    )
    policy = Declared(
        ObjectKey.policy("gdpr"),
        *("uid-3", "3", 1, now),
        spec={},
        status={
            "conditions": ready,
            "lastReport": {"time": "2026-01-31T09:30:00Z", "failed": 1, "errors": 0},
        },
    )
    mirror = Mirror()
    mirror.put(policy)
    mirror.put(tenant)
    mirror.put(store)
    live = Measured(TenantId("support", "acme"), 1, 2, 3, 4, oldest=1)
    return await declared_series(mirror, tenant_limit=1, measured=[live])


if __name__ == "__main__":
    main()
