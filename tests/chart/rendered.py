"""The chart as Helm renders it, without a cluster."""

import functools
import json
import pickle
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.support import tiers
from tests.support.controlplane import build
from tests.support.processes import Unavailable

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "memtenant"
CI_VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
HOME = "memtenant-system"
RELEASE = "memtenant"

Object = dict[str, Any]

_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it is: the CRDs are 160 kB."""


def try_helm(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run Helm and return whatever came of it."""
    try:
        program = build.helm()
    except Unavailable as missing:
        tiers.cannot_run(str(missing))
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def template(*arguments: str | Path, release: str = RELEASE) -> str:
    """What `helm template` prints."""
    answer = try_helm("template", release, CHART, "-n", HOME, *arguments)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def objects(*arguments: str | Path, release: str = RELEASE) -> list[Object]:
    """Every object of the chart with these arguments of `helm template`. The chart is rendered and
    read once for all who ask the same; what they get is their own."""
    found: list[Object] = pickle.loads(_objects(arguments, release))  # noqa: S301 - made here
    return found


@functools.cache
def _objects(arguments: tuple[str | Path, ...], release: str) -> bytes:
    read = yaml.load_all(template(*arguments, release=release), _PARSER)
    return pickle.dumps([found for found in read if found])


def one(found: Iterable[Object], kind: str, name: str = RELEASE) -> Object:
    """The only object of this kind and name."""
    (match,) = (each for each in found if each["kind"] == kind and each["metadata"]["name"] == name)
    return match


def of_kind(found: Iterable[Object], kind: str) -> list[Object]:
    """All objects of this kind."""
    return [each for each in found if each["kind"] == kind]


def pod_templates(found: Iterable[Object]) -> list[Object]:
    """The template of every pod that the chart would start, or have the operator start."""
    made = [each["spec"]["template"] for each in found if "template" in each.get("spec", {})]
    return [*made, *(job["spec"]["template"] for job in report_jobs(made))]


def report_jobs(templates: Iterable[Object]) -> list[Object]:
    """The jobTemplates that these pods are given in their environment."""
    return [
        json.loads(entry["value"])
        for pod in templates
        for container in pod["spec"]["containers"]
        for entry in container["env"]
        if entry["name"] == "MEMTENANT_REPORT_JOB"
    ]
