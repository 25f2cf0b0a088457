"""Where a binding is found, how its changes are noticed, and what is said where that cannot be."""

import logging
from pathlib import Path

import pytest

from memtenant.errors import BindingInvalid, KeyInvalid
from memtenant.memory.source import BindingSource, frozen_mount
from memtenant.tenancy.identity import TenantId
from tests.memory.bindings import Provisioned
from tests.support.servers import Flavour, Options, Server


@pytest.fixture
def acme(tmp_path: Path) -> Provisioned:
    """Nothing here connects."""
    return Provisioned(Server(Flavour.VALKEY_9, 6379, tmp_path, Options(), ""), tmp_path / "root")


def test_the_only_binding_is_found_and_one_of_several_has_to_be_named(acme: Provisioned) -> None:
    acme.bind()
    environ = {"SERVICE_BINDING_ROOT": str(acme.root)}
    (acme.root / "postgres").mkdir()
    (acme.root / "postgres" / "provider").write_text("somebody-else")
    assert BindingSource.named(None, environ).folder.name == "acme-default"
    acme.bind("other")
    with pytest.raises(BindingInvalid, match="acme-default, acme-other"):
        BindingSource.named(None, environ)
    assert BindingSource.named("acme-other", environ).current().binding.agent == "other"
    with pytest.raises(BindingInvalid, match="there is: acme-default, acme-other"):
        BindingSource.named("nope", environ)
    for name in ("..", "a/b", ""):
        with pytest.raises(BindingInvalid, match="folder's name"):
            BindingSource.named(name, environ)


def test_what_is_missing_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BindingInvalid, match=r"status\.binding\.name"):
        BindingSource.named(None, {})
    with pytest.raises(BindingInvalid, match="environment variables, which never change"):
        BindingSource.named(None, {"tenantId": "a.b", "uri": "redis://"})
    with pytest.raises(BindingInvalid, match="mount the Secret"):
        BindingSource.named(None, {"SERVICE_BINDING_ROOT": str(tmp_path)})
    with pytest.raises(BindingInvalid, match="cannot be read"):
        BindingSource.named(None, {"SERVICE_BINDING_ROOT": str(tmp_path / "none")})


def test_a_change_is_noticed_and_a_broken_one_leaves_what_was(
    acme: Provisioned, caplog: pytest.LogCaptureFixture
) -> None:
    source = acme.source()
    first = source.current(look=True)
    assert source.current(look=True) is first
    folder = acme.bind(password="next", version=2)
    second = source.current(look=True)
    assert (second.binding.version, second.generation) == (2, 2)
    data = (folder / "..data").resolve()
    (folder / "..broken").mkdir()
    (folder / "..data_tmp").symlink_to("..broken")
    (folder / "..data_tmp").rename(folder / "..data")
    with caplog.at_level(logging.WARNING):
        assert source.current(look=True) is second
    assert "is not used" in caplog.text
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").rename(folder / "..data")
    assert source.current(look=True).binding.version == 2


def test_a_folder_of_plain_files_is_followed_too(acme: Provisioned, tmp_path: Path) -> None:
    mounted = acme.bind()
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in (mounted / "..data").iterdir():
        (plain / file.name).write_bytes(file.read_bytes())
    source = BindingSource(plain)
    (plain / "version").write_text("7")
    assert source.current(look=True).binding.version == 7
    uri = (plain / "uri").read_text()
    (plain / "host").write_text("elsewhere.example.org")
    (plain / "uri").write_text(uri.replace("127.0.0.1", "elsewhere.example.org"))
    assert source.current(look=True).binding.host == "elsewhere.example.org"


def test_a_folder_that_becomes_anothers_is_not_used(
    acme: Provisioned, caplog: pytest.LogCaptureFixture
) -> None:
    source = acme.source()
    other = Provisioned(acme.server, acme.root.parent / "b", tenant=TenantId("support", "zz"))
    stranger = other.bind()
    folder = source.folder
    (folder / "..data_tmp").symlink_to((stranger / "..data").resolve())
    (folder / "..data_tmp").rename(folder / "..data")
    assert str(source.current(look=True).binding.tenant) == "support.acme"
    assert "restart" in caplog.text


def test_a_keyring_of_another_agent_or_without_sense_is_refused(acme: Provisioned) -> None:
    folder, other = acme.bind(), acme.bind("other")
    keyring = folder / "..data" / "keyring.json"
    keyring.write_bytes((other / "keyring.json").read_bytes())
    with pytest.raises(BindingInvalid, match="another tenant or agent"):
        BindingSource(folder)
    keyring.write_text("{}")
    with pytest.raises(KeyInvalid):
        BindingSource(folder)


def test_mounts_that_never_change_are_told() -> None:
    folder = Path("/bindings/acme")
    line = "36 35 98:0 {root} {where} rw,noatime master:1 - ext4 /dev/root rw"
    subpath = "/var/lib/kubelet/pods/u/volume-subpaths/binding/agent/0"
    assert frozen_mount(folder, line.format(root="/", where="/bindings/acme")) == ""
    assert frozen_mount(folder, line.format(root="/", where="/bindings/acme/other")) == ""
    assert "subPath" in frozen_mount(folder, line.format(root=subpath, where="/bindings/acme"))
    single = line.format(root="/x", where="/bindings/acme/password")
    assert "one by one" in frozen_mount(folder, f"garbage\n{single}\n")
