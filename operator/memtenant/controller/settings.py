"""Every setting of the operator, one paragraph each.

A setting comes from a flag, else from the environment (``MEMTENANT_`` and the field's name in
capitals), else from a YAML file, else from its default. Lengths of time are written as periods
(``30s``, ``10m``) or as a number of seconds; lists in the environment are separated by commas.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from memtenant.errors import InvalidResource, UsageError
from memtenant.tenancy.period import Period

__all__ = ["ENV_PREFIX", "LogFormat", "LogLevel", "SecretAccess", "Settings", "load"]

ENV_PREFIX = "MEMTENANT_"

_IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class SecretAccess(StrEnum):
    """Where the operator may touch Secrets beyond its home namespace."""

    NAMESPACED = "Namespaced"
    CLUSTER = "Cluster"


class LogFormat(StrEnum):
    """``auto`` is text on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """From the most words to the fewest."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


def _seconds(value: object) -> object:
    """Seconds of ``10m``; a number stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return Period.parse(value).days * 86_400
    except InvalidResource as error:
        raise ValueError(str(error)) from error


def _comma_separated(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _job_template(value: object) -> object:
    """The mapping that a JSON text holds, if it can be a jobTemplate."""
    if isinstance(value, str):
        value = json.loads(value)
    try:
        whole = isinstance(value, Mapping) and bool(
            value["spec"]["template"]["spec"]["containers"][0]["image"]
        )
    except (LookupError, TypeError):
        whole = False
    if not whole:
        raise ValueError("it must be a jobTemplate whose first container has an image")
    return value


JobTemplate = Annotated[Mapping[str, Any], BeforeValidator(_job_template)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]


def _home_namespace() -> str:
    try:
        return _IN_CLUSTER_NAMESPACE.read_text().strip()
    except OSError:
        return "memtenant-system"


class Settings(BaseModel):
    """The operator's settings. Frozen: what changes at run time is not a setting.

    The paragraph under each field is its description, which the command line shows too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    home_namespace: str = Field(default_factory=_home_namespace, min_length=1, max_length=63)
    """The namespace of the operator's own things: Lease, keyrings, tenant records, the Secrets of
    stores. The default is the namespace that the pod runs in."""

    installation_id: str = Field(default="", max_length=63)
    """What the operator writes on a store to own it; another installation is refused there. The
    default (empty) is the UID of the home namespace, which no other cluster has."""

    kubeconfig: Path | None = None
    """A kubeconfig file, to run outside of a cluster. The default is the pod's ServiceAccount,
    else $KUBECONFIG, else ~/.kube/config."""

    secret_access: SecretAccess = SecretAccess.NAMESPACED
    """``Namespaced``: the operator may touch Secrets in its home namespace and in those of
    `tenant_namespaces` (the chart makes a RoleBinding in each). ``Cluster``: everywhere."""

    tenant_namespaces: Names = ()
    """Where `secret_access: Namespaced` grants access to Secrets: key Secrets there are noticed
    when they change. A tenant elsewhere is Stalled with the command that grants it."""

    service_account: str = Field(default="memtenant", min_length=1, max_length=253)
    """The operator's ServiceAccount in its home namespace: named where access is asked for. The
    ClusterRole ``<service_account>-secrets`` holds what it needs of Secrets."""

    changed_by_stamped: bool = False
    """Whether an admission policy stamps who changed a spec (the annotation
    ``memtenant.dev/changed-by``), and nobody else can: that user is then named in the audit."""

    workers: int = Field(default=16, ge=1, le=256)
    """How many reconciles run at once. They wait for servers most of the time; one process has one
    core for their own work, so more than some dozens add memory and no speed."""

    store_concurrency: int = Field(default=8, ge=1, le=256)
    """How many of them may work on one store at once, so that a slow store cannot take all
    workers."""

    reconcile_timeout: Seconds = 120.0
    """A reconcile that takes longer is cancelled and tried again with backoff."""

    backoff_first: Seconds = 0.25
    """The wait after an object's first failure; it doubles with each further one."""

    backoff_longest: Seconds = 300.0
    """The longest wait between two tries of a failing object."""

    store_probe_longest: Seconds = 15.0
    """The longest wait between two tries to reach a store that does not answer. Its tenants wait
    until it does, so this is how late they may notice."""

    resync_interval: Seconds = 600.0
    """How often every object is listed and reconciled anew, whether or not an event came: the net
    under lost events, and how late a change of an unwatched Secret is noticed."""

    repair_interval: Seconds = 5.0
    """How often each store's users are compared with what they should be, on every node."""

    measure_interval: Seconds = 60.0
    """How often each store's memory is measured: how late a quota is enforced. Counted from the
    end of one scan to the start of the next. So often too, data keys are wrapped anew while the
    key of a tenant turns."""

    erase_interval: Seconds = 10.0
    """How often each store's queues are looked at for persons to erase, and erasures under way are
    gone on with."""

    expiry_interval: Seconds = 300.0
    """How often what has passed its period is removed from each store, as far as the tenants' own
    lists tell. It is not read any more from the moment on at which it expires."""

    expiry_pass_interval: Seconds = 86_400.0
    """How often all keys of a store are looked at for what has passed its period: the net under
    those lists, which agents may write. Counted from the end of one pass."""

    audit_interval: Seconds = 15.0
    """How often is looked at what the sealer does on each store: how late a condition tells that
    nobody drains."""

    store_gone_grace: Seconds = 600.0
    """How long a tenant in deletion waits for a store that does not answer or exists no more,
    before it detaches and leaves an orphan record."""

    kubelet_lag: Seconds = 180.0
    """How long after a Secret was written some pod may still read the earlier one. A credential is
    never revoked earlier than this after its successor was published."""

    credential_grace: Seconds = 86_400.0
    """How long a rotated credential that is still in use is kept at most."""

    key_grace: Seconds = 300.0
    """How long a retired key version is kept after nothing is left under it: as long as an agent
    may go on with a data key that it keeps in memory."""

    shred_epoch: Seconds = 86_400.0
    """How long after an erasure a new key version is begun, so that the versions that the erased
    data was under can be destroyed. Erasures meanwhile share it."""

    lease_name: str = Field(default="memtenant-operator", min_length=1, max_length=63)
    """The Lease in the home namespace that one replica holds to lead."""

    lease_duration: Seconds = 15.0
    """How long after its last renewal a leader is believed to live: how long a takeover takes when
    a leader dies without a word."""

    lease_renew_deadline: Seconds = 10.0
    """A leader that could not renew for so long stops. Less than `lease_duration`."""

    lease_retry_period: Seconds = 2.0
    """How often a leader renews and a standby looks. Less than `lease_renew_deadline`."""

    identity: str = Field(default_factory=socket.gethostname, min_length=1)
    """Who this replica is in the Lease. The default is the host's name: the pod's."""

    drain_deadline: Seconds = 20.0
    """How long a replica that was asked to stop lets running reconciles finish. Keep it below the
    pod's terminationGracePeriodSeconds."""

    watch_silence: Seconds = 180.0
    """A watch on which nothing arrived for so long is dead, and liveness fails. The API server
    sends a bookmark about once a minute on a watch that is otherwise quiet."""

    health_host: str = "0.0.0.0"  # noqa: S104 -- probes and Prometheus come from outside the pod
    """The address that /healthz, /readyz and /metrics are served on."""

    health_port: int = Field(default=8080, ge=0, le=65_535)
    """The port for it; 0 takes a free one and logs which."""

    tenant_series_limit: int = Field(default=1_000, ge=0)
    """Of how many tenants at most /metrics shows single series, a dozen each. Above it the ones
    that are not Ready come first, then the fullest, and the sums go on counting all."""

    report_job: JobTemplate | None = None
    """What the CronJobs of reports run: a jobTemplate, in the environment as JSON. Its first
    container gets ``--policy NAME`` behind its args. The default (none): a policy's reports are not
    scheduled, and it says so."""

    log_format: LogFormat = LogFormat.AUTO
    """``json`` (one object a line), ``text``, or ``auto``: text on a terminal."""

    log_level: LogLevel = LogLevel.INFO
    """What is logged at least."""

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if not self.lease_retry_period < self.lease_renew_deadline < self.lease_duration:
            raise ValueError(
                "lease_retry_period must be shorter than lease_renew_deadline, and that shorter "
                "than lease_duration: otherwise two replicas could lead at once"
            )
        if not self.lease_duration.is_integer():
            raise ValueError("lease_duration must be whole seconds, as a Lease states it")
        if self.secret_access is SecretAccess.CLUSTER and self.tenant_namespaces:
            raise ValueError(
                "tenant_namespaces says nothing with secret_access Cluster: remove one of them"
            )
        return self

    @property
    def secret_namespaces(self) -> tuple[str, ...]:
        """Where Secrets are watched; empty: in all namespaces."""
        if self.secret_access is SecretAccess.CLUSTER:
            return ()
        return tuple(dict.fromkeys((self.home_namespace, *self.tenant_namespaces)))


def load(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Settings:
    """The settings that flags, environment and file make, in that order of precedence.

    A flag of None was not given. Raises `UsageError` that names each setting that is wrong; the
    values are not repeated.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {} if file is None else _from_file(file)
    for name in Settings.model_fields:
        text = environ.get(ENV_PREFIX + name.upper())
        if text is not None:
            values[name] = text
    values |= {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'settings'}: {detail['msg']}"
            for detail in error.errors()
        )
        raise UsageError(f"the operator's settings cannot be used: {wrong}") from None


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise UsageError(f"the settings file {file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError:
        raise UsageError(f"the settings file {file} is not YAML") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"the settings file {file} must hold a mapping of settings to values")
    return content
