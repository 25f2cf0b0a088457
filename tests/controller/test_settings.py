from pathlib import Path

import pytest

from memtenant.controller.settings import SecretAccess, Settings, load
from memtenant.errors import UsageError


def test_a_flag_beats_the_environment_and_that_a_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("workers: 2\nstore_concurrency: 2\nresync_interval: 20m\n")
    settings = load(
        {"workers": 4, "store_concurrency": None},
        environ={"MEMTENANT_WORKERS": "3", "MEMTENANT_STORE_CONCURRENCY": "3"},
        file=file,
    )
    assert (settings.workers, settings.store_concurrency) == (4, 3)
    assert settings.resync_interval == 1200.0


def test_a_length_of_time_is_a_period_or_seconds() -> None:
    settings = load(
        {"repair_interval": 2.5, "measure_interval": "90"},
        environ={"MEMTENANT_CREDENTIAL_GRACE": "2d"},
    )
    assert settings.repair_interval == 2.5
    assert settings.measure_interval == 90.0
    assert settings.credential_grace == 172_800.0


def test_namespaces_come_from_a_list_with_commas() -> None:
    settings = load(
        {"home_namespace": "memtenant"},
        environ={"MEMTENANT_TENANT_NAMESPACES": "support, research,"},
    )
    assert settings.secret_namespaces == ("memtenant", "support", "research")


def test_cluster_access_watches_everywhere() -> None:
    assert load({"secret_access": SecretAccess.CLUSTER}, environ={}).secret_namespaces == ()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"workers": 0}, "workers"),
        ({"repair_interval": "0"}, "repair_interval"),
        ({"resync_interval": "often"}, "resync_interval"),
        ({"lease_renew_deadline": 15}, "lease_renew_deadline"),
        ({"secret_access": "Cluster", "tenant_namespaces": "a"}, "tenant_namespaces"),
        ({"wokers": 3}, "wokers"),
        ({"report_job": "{"}, "report_job"),
        ({"report_job": '{"spec": {"template": {"spec": {"containers": []}}}}'}, "report_job"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(values: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        load(values, environ={})


@pytest.mark.parametrize("content", ["[1, 2]", "a: [", "just words"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match="settings file"):
        load(environ={}, file=file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(environ={}, file=tmp_path / "none.yaml")


def test_every_setting_has_a_paragraph() -> None:
    undescribed = {name for name, info in Settings.model_fields.items() if not info.description}
    assert not undescribed
