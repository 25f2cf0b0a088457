"""What is kept of the release before this one, and what this one keeps of it."""

import hashlib
import re
import sys
import tomllib

import yaml

from memtenant.functions.library import libraries
from tests.chart.rendered import CHART, ROOT
from tests.upgrade.released import releases

LAST = releases()[-1]


def test_package_chart_and_image_have_one_version_which_is_new() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    image = re.findall(r"^ARG VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [chart["version"], chart["appVersion"], *image] == [version] * 3
    assert version not in [one.version for one in releases()]


def test_the_library_of_the_version_before_is_what_its_release_loads() -> None:
    code = "from memtenant.functions.library import libraries as l; print(l()[0].code, end='')"
    released = LAST.run(code, sys.executable)
    current, before = libraries()
    assert released.startswith(f"#!lua name={before.name}\n")
    assert hashlib.sha256(released.encode()).hexdigest() == before.digest
    assert current.version == before.version + 1
