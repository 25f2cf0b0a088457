"""What an instance is made of, by its tenant, its quota and the store's template."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from memtenant.api.dedicated import Dedicated
from memtenant.rules.instance import Instance, admin_line, claim_name, instance_name
from memtenant.rules.instanceobjects import (
    headless_service,
    is_outdated,
    network_policy,
    stateful_set,
)
from memtenant.rules.manifest import differences, undeclared
from memtenant.tenancy.identity import TenantId

HOME = "memtenant-system"
MIB, GIB = 1 << 20, 1 << 30
TEMPLATE = Dedicated.model_validate({"image": "valkey/valkey:8.1"})

labels = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?\Z")
tenants = st.builds(TenantId, labels, labels)


def instance(quota: int = 64 * MIB, tenant: TenantId | None = None, **spec: Any) -> Instance:
    template = Dedicated.model_validate({"image": "valkey/valkey:8.1", **spec})
    return Instance(tenant or TenantId("health", "clinic"), "own", quota, template)


@given(tenants, tenants)
def test_no_two_tenants_have_an_instance_of_one_name(one: TenantId, other: TenantId) -> None:
    assume(one != other)
    assert instance_name(one) != instance_name(other)
    assert claim_name(one) != claim_name(other)


def test_the_boundary_between_namespace_and_name_counts() -> None:
    assert instance_name(TenantId("a-b", "c")) != instance_name(TenantId("a", "b-c"))


@given(tenants)
def test_a_pods_labels_hold_its_name_and_revision(tenant: TenantId) -> None:
    name = instance_name(tenant)
    assert len(name) <= 52
    assert len(f"{name}-0") <= 63
    assert claim_name(tenant) == f"data-{name}-0"


@given(st.integers(MIB, 1 << 50))
def test_there_is_room_beyond_the_quota(quota: int) -> None:
    one = instance(quota)
    assert one.maxmemory - quota >= 16 * MIB
    assert one.maxmemory < one.requested_memory
    assert one.volume >= 3 * one.maxmemory
    assert one.volume % GIB == 0


@given(st.integers(MIB, 1 << 50), st.integers(MIB, 1 << 50))
def test_a_larger_quota_never_gets_less(one: int, other: int) -> None:
    smaller, larger = instance(min(one, other)), instance(max(one, other))
    assert smaller.maxmemory <= larger.maxmemory
    assert smaller.volume <= larger.volume


def test_nothing_has_an_owner_and_everything_says_whose_it_is() -> None:
    one = instance()
    for made in (
        headless_service(one, HOME),
        network_policy(one, HOME),
        stateful_set(one, HOME, GIB),
    ):
        metadata = made["metadata"]
        assert metadata["namespace"] == HOME
        assert metadata["labels"]["memtenant.dev/tenant-namespace"] == "health"
        assert metadata["labels"]["memtenant.dev/tenant"] == "clinic"
        assert "ownerReferences" not in metadata


def test_the_pod_is_restricted_and_knows_no_password() -> None:
    spec = stateful_set(instance(), HOME, GIB)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"]
    assert not spec["automountServiceAccountToken"]
    mounted = {item["key"] for item in spec["volumes"][0]["secret"]["items"]}
    assert mounted == {"admin.acl", "tls.crt", "tls.key", "ca.crt"}
    assert b"secret-word" not in admin_line("secret-word", ("+ping",))


def test_only_the_tenant_and_the_operator_reach_it_and_it_reaches_nobody() -> None:
    spec = network_policy(instance(), HOME)["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == []
    (rule,) = spec["ingress"]
    named = [one["namespaceSelector"]["matchLabels"] for one in rule["from"]]
    assert [one["kubernetes.io/metadata.name"] for one in named] == ["health", HOME]
    assert rule["from"][1]["podSelector"]


def test_the_template_is_kept() -> None:
    spec = stateful_set(
        instance(
            persistence={"fsync": "Always"},
            resources={"cpu": "2"},
            scheduling={
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "memory", "value": "only", "effect": "NoSchedule"}],
                "priorityClassName": "high",
            },
            storageClassName="fast",
        ),
        HOME,
        GIB,
    )["spec"]
    pod = spec["template"]["spec"]
    arguments = pod["containers"][0]["args"]
    assert arguments[arguments.index("--appendfsync") + 1] == "always"
    assert pod["containers"][0]["resources"]["requests"]["cpu"] == "2"
    assert pod["nodeSelector"] == {"disk": "ssd"}
    assert pod["tolerations"] == [
        {"key": "memory", "operator": "Equal", "value": "only", "effect": "NoSchedule"}
    ]
    assert pod["priorityClassName"] == "high"
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"


def test_what_the_api_server_fills_in_is_no_difference() -> None:
    wanted = stateful_set(instance(), HOME, GIB)
    there = stateful_set(instance(), HOME, GIB)
    there["spec"]["revisionHistoryLimit"] = 10
    there["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent"
    claim = there["spec"]["volumeClaimTemplates"][0]["spec"]
    claim["resources"]["requests"]["storage"] = "1Gi"
    assert differences(wanted, there) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), 0),
        (("spec", "template", "spec", "automountServiceAccountToken"), True),
        (("metadata", "labels"), {}),
    ],
)
def test_what_somebody_changed_is_a_difference(path: tuple[str, ...], value: object) -> None:
    there: Any = stateful_set(instance(), HOME, GIB)
    at = there
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    found = differences(stateful_set(instance(), HOME, GIB), there)
    assert found
    assert all(one.startswith(".".join(path)) for one in found)


def test_what_the_operator_applied_once_and_does_not_declare_is_found() -> None:
    wanted = stateful_set(instance(), HOME, GIB)
    fields = {
        "f:metadata": {"f:labels": {"f:memtenant.dev/tenant": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:template": {
                "f:spec": {
                    "f:nodeSelector": {},
                    "f:containers": {
                        'k:{"name":"server"}': {".": {}, "f:image": {}, "f:envFrom": {}},
                        'k:{"name":"sidecar"}': {".": {}, "f:image": {}},
                    },
                }
            },
        },
    }
    entry = {"manager": "memtenant", "operation": "Apply", "fieldsV1": fields}
    others = {**entry, "manager": "kubectl", "fieldsV1": {"f:spec": {"f:paused": {}}}}
    there = {"metadata": {"managedFields": [entry, others]}}
    pod = "spec.template.spec"
    assert undeclared(wanted, there, "memtenant") == [
        f"{pod}.nodeSelector",
        f'{pod}.containers[{{"name":"server"}}].envFrom',
        f'{pod}.containers[{{"name":"sidecar"}}]',
    ]


def test_without_tls_the_pod_has_no_certificate_and_with_it_no_open_port() -> None:
    clear = stateful_set(instance(tls={"mode": "Disabled"}), HOME, GIB)["spec"]["template"]["spec"]
    assert [item["key"] for item in clear["volumes"][0]["secret"]["items"]] == ["admin.acl"]
    arguments = clear["containers"][0]["args"]
    assert arguments[arguments.index("--port") + 1] == "6379"
    assert "--tls-port" not in arguments
    protected = stateful_set(instance(), HOME, GIB)["spec"]["template"]["spec"]
    arguments = protected["containers"][0]["args"]
    assert arguments[arguments.index("--port") + 1] == "0"
    assert arguments[arguments.index("--tls-port") + 1] == "6379"


def test_a_pod_whose_image_was_renamed_at_admission_is_not_outdated() -> None:
    one = instance(image="valkey/valkey:8.1")
    pod = stateful_set(one, HOME, GIB)["spec"]["template"]
    pod["spec"]["containers"][0]["image"] = "registry.example/valkey@sha256:0"
    assert not is_outdated(pod, one)
    assert is_outdated(pod, instance(image="valkey/valkey:9.0"))
    assert is_outdated(pod, instance(image="valkey/valkey:8.1", tls={"mode": "Disabled"}))
