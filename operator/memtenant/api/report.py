"""ComplianceReport: what one run found about the tenants under a policy.

Small on purpose: etcd holds the summary, the files hold the evidence, and the hash of their
manifest, which is a leaf of the audit log, joins the two.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints

from memtenant.api.fields import Model, Moment, NameRef, Timestamp, map_list
from memtenant.api.resource import Column, Names, Resource, Status
from memtenant.api.rule import Rule, ruled

__all__ = [
    "MAX_FAILING",
    "Artefact",
    "Artefacts",
    "ComplianceReport",
    "ComplianceReportSpec",
    "ComplianceReportStatus",
    "FailingControl",
    "FrameworkResult",
    "ReportPeriod",
    "ResultCounts",
    "Verdict",
]

MAX_FAILING = 50
"""The most failing controls that a status lists; it tells how many there are."""

_MAX_NAME = 63

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)]

_NAMED_AS_A_LABEL_VALUE = Rule(
    cel=f"self.metadata.name.size() <= {_MAX_NAME}",
    message=f"metadata.name must be at most {_MAX_NAME} characters: use <policy>-<time>",
    check=lambda it, _: len(it["metadata"].get("name", "")) <= _MAX_NAME,
)

_AS_IT_WAS_MADE = Rule(
    cel="self == oldSelf",
    message="a report is not changed after it was made: make another one",
    check=lambda it, old: it == old,
)


class Verdict(StrEnum):
    """What became of a control. Missing evidence is Error, never Pass."""

    PASS = "Pass"  # noqa: S105 -- a verdict
    FAIL = "Fail"
    WARN = "Warn"
    ERROR = "Error"
    SKIP = "Skip"
    MANUAL = "Manual"


class ReportPeriod(Model):
    """The time that a report speaks of; events are counted in it."""

    since: Moment = Field(description="From when on.")
    until: Moment = Field(description="Until when: states are those of this moment.")


class ComplianceReportSpec(Model):
    """What a report is about."""

    model_config = ConfigDict(json_schema_extra=ruled(_AS_IT_WAS_MADE))

    policy_ref: NameRef = Field(description="The RetentionPolicy whose tenants were looked at.")
    period: ReportPeriod = Field(description="The time that the report speaks of.")


class ResultCounts(Model):
    """How many controls came to which verdict."""

    passed: int = Field(default=0, alias="pass", description="Evidence shows it is so.", ge=0)
    fail: int = Field(default=0, description="Evidence shows it is not so.", ge=0)
    warn: int = Field(default=0, description="So, but not for long or not quite.", ge=0)
    error: int = Field(default=0, description="Evidence was missing.", ge=0)
    skip: int = Field(default=0, description="Not looked at, for a stated reason.", ge=0)
    manual: int = Field(default=0, description="No program can tell; a person has to.", ge=0)


class FrameworkResult(ResultCounts):
    """The same for one framework."""

    name: str = Field(description="The framework, as GDPR.", max_length=32)


class FailingControl(Model):
    """A control that failed, or whose evidence was missing."""

    id: str = Field(description="Framework and control, as GDPR/5-1-e.", max_length=128)
    clause: str = Field(description="What it rests on.", max_length=256)
    severity: str = Field(description="How much hangs on it.", max_length=16)
    verdict: Verdict = Field(description="Fail or Error.")
    finding: str = Field(description="What was found.", max_length=1024)


class Artefact(Model):
    """One file of a report."""

    name: str = Field(description="Its name in the report's folder.", max_length=128)
    sha256: Digest = Field(description="Of its bytes.")


class Artefacts(Model):
    """Where the whole report is, and what proves that it is unchanged."""

    location: str = Field(
        description="The report's folder, below the volume of reports.", max_length=512
    )
    manifest_sha256: Digest = Field(
        description="Of manifest.json, which names every file's: a leaf of the audit log."
    )
    files: tuple[Artefact, ...] = Field(
        default=(), description="The files.", **map_list("name", 16)
    )


class ComplianceReportStatus(Status):
    """What was found."""

    made_at: Timestamp | None = Field(default=None, description="When the run ended.")
    tenants: int = Field(default=0, description="Tenants that the report is about.", ge=0)
    summary: ResultCounts | None = Field(
        default=None, description="How many controls came to which verdict."
    )
    frameworks: tuple[FrameworkResult, ...] = Field(
        default=(), description="The same per framework.", **map_list("name", 16)
    )
    failing_total: int = Field(
        default=0, description="Controls that failed or lacked evidence; failing lists some.", ge=0
    )
    failing: tuple[FailingControl, ...] = Field(
        default=(),
        description="The controls that failed or lacked evidence, the gravest first.",
        **map_list("id", MAX_FAILING),
    )
    artefacts: Artefacts | None = Field(default=None, description="Where the whole report is.")


class ComplianceReport(Resource):
    """What one run found about the tenants under a RetentionPolicy: technical evidence."""

    model_config = ConfigDict(json_schema_extra=ruled(_NAMED_AS_A_LABEL_VALUE))

    NAMES: ClassVar[Names] = Names(
        plural="compliancereports",
        singular="compliancereport",
        short=("mreport", "mreports"),
        namespaced=True,
    )
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column(name="Policy", path=".spec.policyRef.name", description="Whose tenants"),
        *(
            Column(
                name=name,
                path=f".status.summary.{path}",
                type="integer",
                description=description,
                wide=wide,
            )
            for name, path, description, wide in (
                ("Pass", "pass", "Controls that passed", False),
                ("Fail", "fail", "Controls that failed", False),
                ("Warn", "warn", "Controls that warn", False),
                ("Error", "error", "Controls without their evidence", False),
                ("Skip", "skip", "Controls that were not looked at", True),
                ("Manual", "manual", "Controls that a person has to judge", True),
            )
        ),
        Column(
            name="Tenants",
            path=".status.tenants",
            type="integer",
            description="Tenants that the report is about",
        ),
        Column(
            name="Location",
            path=".status.artefacts.location",
            description="Where the files are",
            wide=True,
        ),
        Column(
            name="Ready",
            path='.status.conditions[?(@.type=="Ready")].status',
            description="Whether the report is complete",
        ),
        Column(name="Age", path=".metadata.creationTimestamp", type="date", description="Age"),
    )

    kind: Literal["ComplianceReport"] = "ComplianceReport"
    spec: ComplianceReportSpec = Field(description="What the report is about.")
    status: ComplianceReportStatus = Field(
        default_factory=ComplianceReportStatus, description="What was found."
    )
