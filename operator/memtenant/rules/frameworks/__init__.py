"""Regulations as dated data: one TOML file per framework, a clause for every number.

Adding a framework is adding a file, here or in a folder of one's own. A number that the law does
not state is marked as memtenant's default in its clause (docs/retention.md).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from types import MappingProxyType

from memtenant.errors import FrameworkInvalid, InvalidResource
from memtenant.rules.controls import MANUAL, Control, Parameters, Severity
from memtenant.tenancy.masking import Detector
from memtenant.tenancy.period import Period

__all__ = [
    "ClassRule",
    "Clause",
    "Feature",
    "Framework",
    "MaskingRule",
    "RecordClass",
    "built_in_frameworks",
    "load_frameworks",
    "required_features",
    "select_frameworks",
]

_SCHEMA = 1
_MAX_CLAUSE = 200
_MAX_WORDS = 600


class RecordClass(StrEnum):
    """What kind of record a period is for."""

    CONTENT = "content"
    DERIVED = "derived"
    AUDIT = "audit"
    EVIDENCE = "evidence"


class Feature(StrEnum):
    """What a framework may ask for beside retention."""

    ERASURE = "erasure"
    PORTABILITY = "portability"
    CONSENT = "consent"
    ENCRYPTION = "encryption"
    ISOLATION = "isolation"
    MASKING = "masking"
    INTEGRITY = "integrity"
    ACCESS_CONTROLS = "access_controls"
    ACCESS_LOGGING = "access_logging"
    ACCESS_MONITORING = "access_monitoring"
    CHANGE_TRACKING = "change_tracking"
    IMMUTABLE_AUDIT = "immutable_audit"


@dataclass(frozen=True, slots=True)
class Clause:
    """A period, and where it is written."""

    period: Period
    clause: str


@dataclass(frozen=True, slots=True)
class ClassRule:
    """What one framework says about one class of record.

    ``minimum`` and ``maximum`` bind; ``default`` is for those who choose nothing. With a
    ``justify_clause``, longer than the default asks for a stated legal basis. ``at_hand`` is how
    much of it must be readable at once.
    """

    default: Clause | None = None
    minimum: Clause | None = None
    maximum: Clause | None = None
    at_hand: Clause | None = None
    justify_clause: str = ""


@dataclass(frozen=True, slots=True)
class MaskingRule:
    """What a framework that asks for masking wants found at least, and what is never stored."""

    detectors: tuple[Detector, ...] = ()
    detectors_clause: str = ""
    refused: tuple[Detector, ...] = ()
    refused_clause: str = ""


@dataclass(frozen=True, slots=True)
class Framework:
    """One regulation. ``date`` is when its data was last checked against ``source``."""

    id: str
    title: str
    source: str
    date: date
    retention: Mapping[RecordClass, ClassRule]
    features: Mapping[Feature, str]
    masking: MaskingRule = MaskingRule()
    controls: tuple[Control, ...] = ()

    def rule(self, record_class: RecordClass) -> ClassRule:
        """What it says about a class; an empty rule where it says nothing."""
        return self.retention.get(record_class, ClassRule())


@cache
def built_in_frameworks() -> Mapping[str, Framework]:
    """GDPR, HIPAA, PCI_DSS and SOX."""
    return load_frameworks(files(__name__))


def load_frameworks(folder: Traversable) -> Mapping[str, Framework]:
    """Every ``*.toml`` of a folder, by id; `FrameworkInvalid` names the file and the field."""
    found: dict[str, Framework] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        framework = _read(file)
        if framework.id in found:
            raise FrameworkInvalid(f"{file.name}: another file has the id {framework.id!r} already")
        found[framework.id] = framework
    return MappingProxyType(found)


def select_frameworks(
    known: Mapping[str, Framework], names: Iterable[str]
) -> tuple[Framework, ...]:
    """The named frameworks in order of id, each once; `InvalidResource` lists the known ones."""
    wanted = sorted(set(names))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InvalidResource(
            f"spec.frameworks names {', '.join(map(repr, unknown))}, which this memtenant does not "
            f"know: use {', '.join(sorted(known))}",
            field="spec.frameworks",
            reason="UnknownFramework",
        )
    return tuple(known[name] for name in wanted)


def required_features(frameworks: Iterable[Framework]) -> dict[Feature, str]:
    """Each feature that is asked for, and by whom: ``HIPAA 45 CFR 164.312(b), audit controls``."""
    asked: dict[Feature, list[str]] = {}
    for framework in sorted(frameworks, key=lambda one: one.id):
        for feature, clause in framework.features.items():
            asked.setdefault(feature, []).append(f"{framework.id} {clause}")
    return {feature: "; ".join(clauses) for feature, clauses in sorted(asked.items())}


class _Table:
    """One table of a data file, read strictly: each key once, and none left over."""

    def __init__(self, file: str, path: str, values: Mapping[str, object]) -> None:
        self._file, self._path, self._left = file, path, dict(values)

    def wrong(self, key: str, what: str) -> FrameworkInvalid:
        return FrameworkInvalid(f"{self._file}: {self._path}{key} {what}")

    def keys(self) -> tuple[str, ...]:
        return tuple(self._left)

    def text(self, key: str, longest: int = _MAX_CLAUSE) -> str:
        value = self._left.pop(key, None)
        if not isinstance(value, str) or not value.strip() or len(value) > longest:
            raise self.wrong(key, f"must be a text of 1 to {longest} characters")
        return value

    def optional_text(self, key: str) -> str:
        return self.text(key) if key in self._left else ""

    def day(self, key: str) -> date:
        value = self._left.pop(key, None)
        # A datetime is a date too, and TOML has both.
        if type(value) is not date:
            raise self.wrong(key, "must be a date, as 2026-01-31")
        return value

    def clause(self, key: str) -> Clause | None:
        if key not in self._left:
            return None
        try:
            period = Period.parse(self.text(key))
        except InvalidResource as error:
            raise self.wrong(key, f"is no period: {error}") from None
        return Clause(period, self.text(f"{key}_clause"))

    def detectors(self, key: str) -> tuple[Detector, ...]:
        value = self._left.pop(key, [])
        known = {one.value: one for one in Detector}
        if not isinstance(value, list) or not all(one in known for one in value):
            raise self.wrong(key, f"must be a list of {', '.join(known)}")
        return tuple(known[one] for one in value)

    def severity(self, key: str) -> Severity:
        known = {one.value: one for one in Severity}
        value = self._left.pop(key, None)
        if value not in known:
            raise self.wrong(key, f"must be one of {', '.join(known)}")
        return known[str(value)]

    def values(self, key: str) -> Mapping[str, object]:
        value = self._left.pop(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table")
        return MappingProxyType(value)

    def tables(self, key: str) -> list[_Table]:
        value = self._left.pop(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(key, "must be tables")
        return [
            _Table(self._file, f"{self._path}{key}[{place}].", one)
            for place, one in enumerate(value)
        ]

    def table(self, key: str) -> _Table:
        value = self._left.pop(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "must be a table")
        return _Table(self._file, f"{self._path}{key}.", value)

    def end(self) -> None:
        for key in self._left:
            raise self.wrong(key, "is not known")


def _read(file: Traversable) -> Framework:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FrameworkInvalid(f"{file.name}: it is not TOML: {error}") from None
    if values.pop("schema", None) != _SCHEMA:
        raise FrameworkInvalid(f"{file.name}: schema must be {_SCHEMA}")
    root = _Table(file.name, "", values)
    framework = Framework(
        id=_id(root),
        title=root.text("title"),
        source=root.text("source"),
        date=root.day("date"),
        retention=_retention(root.table("retention")),
        features=_features(root.table("features")),
        masking=_masking(root.table("masking")),
        controls=_controls(root),
    )
    root.end()
    if framework.masking != MaskingRule() and Feature.MASKING not in framework.features:
        raise root.wrong("masking", "needs the feature masking, with its clause")
    return framework


def _id(root: _Table) -> str:
    text = root.text("id", 32)
    if not text.replace("_", "").isalnum() or not text.isascii() or text != text.upper():
        raise root.wrong("id", "must be of capital letters, digits and underscores")
    return text


def _retention(table: _Table) -> Mapping[RecordClass, ClassRule]:
    rules: dict[RecordClass, ClassRule] = {}
    for key in table.keys():  # noqa: SIM118 - the table shrinks while it is read
        if key not in set(RecordClass):
            raise table.wrong(key, f"is no class of record: use {', '.join(RecordClass)}")
        rules[RecordClass(key)] = _class_rule(table.table(key))
    return MappingProxyType(rules)


def _class_rule(table: _Table) -> ClassRule:
    rule = ClassRule(
        default=table.clause("default"),
        minimum=table.clause("minimum"),
        maximum=table.clause("maximum"),
        at_hand=table.clause("at_hand"),
        justify_clause=table.optional_text("justify_clause"),
    )
    table.end()
    if rule.justify_clause and rule.default is None:
        raise table.wrong("justify_clause", "needs a default that it is about")
    _in_order(table, "minimum", rule.minimum, "maximum", rule.maximum)
    _in_order(table, "minimum", rule.minimum, "default", rule.default)
    _in_order(table, "default", rule.default, "maximum", rule.maximum)
    _in_order(table, "at_hand", rule.at_hand, "minimum", rule.minimum)
    return rule


def _in_order(
    table: _Table, name: str, shorter: Clause | None, other: str, longer: Clause | None
) -> None:
    if shorter and longer and shorter.period > longer.period:
        raise table.wrong(name, f"is longer than {other}")


def _features(table: _Table) -> Mapping[Feature, str]:
    found: dict[Feature, str] = {}
    for key in table.keys():  # noqa: SIM118 - the table shrinks while it is read
        if key not in set(Feature):
            raise table.wrong(key, f"is no feature: use {', '.join(Feature)}")
        found[Feature(key)] = table.text(key)
    return MappingProxyType(found)


def _masking(table: _Table) -> MaskingRule:
    detectors, refused = table.detectors("detectors"), table.detectors("refused")
    rule = MaskingRule(
        detectors=detectors,
        detectors_clause=table.text("detectors_clause") if detectors else "",
        refused=refused,
        refused_clause=table.text("refused_clause") if refused else "",
    )
    table.end()
    return rule


def _controls(root: _Table) -> tuple[Control, ...]:
    found = [_control(table) for table in root.tables("controls")]
    if len({one.id for one in found}) != len(found):
        raise root.wrong("controls", "names an id twice")
    return tuple(found)


def _control(table: _Table) -> Control:
    check = table.text("check", 64)
    manual = check == MANUAL
    control = Control(
        id=table.text("id", 32),
        clause=table.text("clause"),
        title=table.text("title"),
        severity=table.severity("severity"),
        check=check,
        parameters=Parameters(table.values("parameters")),
        remedy="" if manual else table.text("remedy", _MAX_WORDS),
        why=table.text("why", _MAX_WORDS) if manual else "",
    )
    table.end()
    return control
