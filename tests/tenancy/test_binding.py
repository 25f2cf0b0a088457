from __future__ import annotations

import itertools
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from memtenant.errors import BindingInvalid
from memtenant.tenancy.binding import BINDING_SECRET_TYPE, Binding
from memtenant.tenancy.cluster import ClusterAccess
from memtenant.tenancy.identity import TenantId
from memtenant.tenancy.policy import Quota, TenantPolicy
from memtenant.tenancy.sentinel import SentinelAccess

BINDING = Binding(
    tenant=TenantId("support", "acme"),
    agent="triage",
    version=3,
    host="redis.memory.svc",
    port=6379,
    username="mt.support.acme.triage.a",
    password="p@ss:w/rd%41 #?&é",
    keyring=b'{"format":1}\n',
    policy=TenantPolicy(quota=Quota(memory=1024)),
    tls=True,
    ca_crt="-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
)

SENTINEL = SentinelAccess(
    endpoints=(("sentinel-0.redis.svc", 26379), ("fd00::1", 26380)),
    master="main",
    username="memtenant-agents-1",
    password="s#cret",
    server_name="redis.example",
)

printable = st.text(
    st.characters(blacklist_categories=("C", "Z"), blacklist_characters="\x7f"), min_size=1
).filter(lambda text: len(text.encode()) <= 300)
hosts = st.sampled_from(["localhost", "10.0.0.1", "redis.memory.svc", "::1", "fe80::1%eth0"])
bindings = st.builds(
    replace,
    st.just(BINDING),
    version=st.integers(1, 10**9 - 1),
    host=hosts,
    port=st.integers(1, 65535),
    username=printable,
    password=printable,
    keyring=st.binary(max_size=50),
    tls=st.booleans(),
    ca_crt=st.sampled_from(["", "-----BEGIN CERTIFICATE-----\n"]),
    sentinel=st.sampled_from([None, SENTINEL, replace(SENTINEL, server_name="")]),
    cluster=st.none(),
) | st.builds(
    replace,
    st.just(BINDING),
    cluster=st.builds(
        ClusterAccess,
        st.lists(st.tuples(st.sampled_from(["a.b", "::1"]), st.integers(1, 65535)), min_size=1).map(
            tuple
        ),
        st.sampled_from(["", "redis.example"]),
    ),
)


def write(folder: Path, data: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in data.items():
        (folder / name).write_bytes(value)
    return folder


def test_the_secret_has_the_fields_of_the_service_binding_specification() -> None:
    assert BINDING_SECRET_TYPE == "servicebinding.io/redis"
    data = BINDING.to_secret_data()
    assert list(data) == [
        "type",
        "provider",
        "host",
        "port",
        "username",
        "password",
        "uri",
        "tenantId",
        "agent",
        "version",
        "keyring.json",
        "policy.json",
        "ca.crt",
    ]
    assert data["type"] == b"redis"
    assert data["provider"] == b"memtenant"
    assert data["tenantId"] == b"support.acme"


def test_without_a_certificate_there_is_no_ca_crt() -> None:
    assert "ca.crt" not in replace(BINDING, ca_crt="").to_secret_data()


@given(bindings)
def test_a_binding_reads_back(binding: Binding) -> None:
    assert Binding.from_mapping(binding.to_secret_data()) == binding


@given(bindings)
def test_a_plain_redis_client_understands_the_uri(binding: Binding) -> None:
    pool = redis.ConnectionPool.from_url(binding.uri)
    assert pool.connection_kwargs["username"] == binding.username
    assert pool.connection_kwargs["password"] == binding.password
    assert pool.connection_kwargs["port"] == binding.port
    assert (pool.connection_class is redis.SSLConnection) is binding.tls


def test_an_ipv6_host_stands_in_brackets() -> None:
    uri = replace(BINDING, host="::1").uri
    assert "@[::1]:6379" in uri
    assert urlsplit(uri).hostname == "::1"
    assert unquote(urlsplit(uri).password or "") == BINDING.password


def test_a_trailing_newline_of_an_editor_is_tolerated() -> None:
    data = BINDING.to_secret_data()
    for name in data.keys() - {"keyring.json", "policy.json", "ca.crt"}:
        data[name] += b"\r\n" if name == "host" else b"\n"
    assert Binding.from_mapping(data) == BINDING


def test_a_field_of_a_newer_operator_is_ignored() -> None:
    data = BINDING.to_secret_data() | {"sentinel.json": b"{}"}
    data["uri"] += b"/0?protocol=3"
    assert Binding.from_mapping(data) == BINDING


@pytest.mark.parametrize("name", sorted(BINDING.to_secret_data().keys() - {"ca.crt"}))
def test_a_missing_field_is_named(name: str) -> None:
    data = BINDING.to_secret_data()
    del data[name]
    with pytest.raises(BindingInvalid, match=f"^{name} of the binding is missing"):
        Binding.from_mapping(data)


@pytest.mark.parametrize("name", sorted(BINDING.to_secret_data()))
def test_an_oversized_field_is_named(name: str) -> None:
    data = BINDING.to_secret_data() | {name: b"x" * (1024 * 1024)}
    with pytest.raises(BindingInvalid, match=f"^{name} of the binding is larger"):
        Binding.from_mapping(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", b"postgresql"),
        ("provider", b"bitnami"),
        ("host", b"a b"),
        ("host", b""),
        ("host", b"evil@host"),
        ("port", b"0"),
        ("port", b"65536"),
        ("port", b"06379"),
        ("port", "٣".encode()),
        ("username", b""),
        ("username", b"\xff"),
        ("username", b"a\nb"),
        ("password", b"a\x00b"),
        ("uri", b"rediss://mt.support.acme.triage.a:x@redis.memory.svc:6379"),
        ("uri", b"redis://[::1"),
        ("uri", b"http://redis.memory.svc"),
        ("tenantId", b"acme"),
        ("agent", b"Tri_age"),
        ("version", b"0"),
        ("version", b"-1"),
        ("ca.crt", b"\xff\xfe"),
        ("policy.json", b"{}"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(name: str, value: bytes) -> None:
    with pytest.raises(BindingInvalid, match=f"^{name} of the binding"):
        Binding.from_mapping(BINDING.to_secret_data() | {name: value})


@pytest.mark.parametrize(
    "name", sorted(BINDING.to_secret_data().keys() - {"ca.crt", "keyring.json"})
)
def test_an_error_never_shows_a_value(name: str) -> None:
    with pytest.raises(BindingInvalid) as caught:
        Binding.from_mapping(BINDING.to_secret_data() | {name: b"geheim\x00"})
    assert "geheim" not in str(caught.value)
    assert BINDING.password not in str(caught.value)


def test_neither_password_nor_keyring_is_in_the_representation() -> None:
    assert "p@ss" not in repr(BINDING)
    assert "format" not in repr(BINDING)


def test_a_folder_is_read_as_the_kubelet_mounts_it(tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    write(folder / "..2026_01", BINDING.to_secret_data())
    (folder / "..data").symlink_to("..2026_01")
    for name in BINDING.to_secret_data():
        (folder / name).symlink_to(Path("..data") / name)
    assert Binding.from_folder(folder) == BINDING


def test_a_plain_folder_is_read_too(tmp_path: Path) -> None:
    assert Binding.from_folder(write(tmp_path / "acme", BINDING.to_secret_data())) == BINDING


def test_a_missing_folder_is_a_binding_error(tmp_path: Path) -> None:
    with pytest.raises(BindingInvalid, match="type of the binding is missing"):
        Binding.from_folder(tmp_path / "nowhere")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "acme", BINDING.to_secret_data())
    (folder / "uri").unlink()
    (folder / "uri").mkdir()
    with pytest.raises(BindingInvalid, match="uri of the binding cannot be read"):
        Binding.from_folder(folder)


def test_no_reader_sees_half_of_a_rotation(tmp_path: Path) -> None:
    """The username of one version never comes with the password of another."""
    folder = tmp_path / "acme"
    folder.mkdir()
    versions = [replace(BINDING, version=n, password=f"password-{n}") for n in (1, 2)]
    stop = threading.Event()

    mounts = itertools.count()

    def turn(binding: Binding) -> None:
        before = (folder / "..data").resolve()
        mount = write(folder / f"..{next(mounts)}", binding.to_secret_data())
        (folder / "..tmp").symlink_to(mount.name)
        (folder / "..tmp").rename(folder / "..data")
        shutil.rmtree(before, ignore_errors=True)

    def turn_for_ever() -> None:
        while not stop.wait(0.001):
            for binding in versions:
                turn(binding)

    turn(versions[0])
    kubelet = threading.Thread(target=turn_for_ever)
    kubelet.start()
    read = 0
    try:
        while read < 300:
            try:
                seen = Binding.from_folder(folder)
            except BindingInvalid as error:
                if "changed while it was read" not in str(error):
                    raise
            else:
                assert seen in versions
                read += 1
    finally:
        stop.set()
        kubelet.join()


@pytest.mark.parametrize("endpoints", ["", "host", "host:0", "a:1,", "a:1;b:2", "a:65536", "[x]:1"])
def test_sentinels_that_cannot_be_understood_are_refused(endpoints: str) -> None:
    data = replace(BINDING, sentinel=SENTINEL).to_secret_data()
    data["sentinelEndpoints"] = endpoints.encode()
    with pytest.raises(BindingInvalid, match="sentinelEndpoints"):
        Binding.from_mapping(data)


def test_a_binding_names_all_of_how_to_ask_sentinels_or_nothing() -> None:
    data = replace(BINDING, sentinel=SENTINEL).to_secret_data()
    assert "s#cret" not in repr(Binding.from_mapping(data))
    del data["sentinelPassword"]
    with pytest.raises(BindingInvalid, match="sentinelPassword of the binding is missing"):
        Binding.from_mapping(data)
