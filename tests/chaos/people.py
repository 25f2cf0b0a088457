"""People at work: they declare tenants, change, rotate and delete them, and make them again."""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from tests.chaos.agents import Agent
from tests.e2e.api import Api
from tests.e2e.scene import Scene, eventually
from tests.support.controlplane.cluster import KubectlFailed

__all__ = ["PatienceLost", "People", "persist"]

_MOST = 8
_REST = (0.2, 1.5)


class PatienceLost(AssertionError):
    """The API server refused somebody for longer than it was away."""


def persist(action: Callable[[], object], stop: threading.Event | None = None) -> None:
    """Try until the API server takes it, as people do, or until it is to stop."""
    failure = ""
    for _ in range(240):
        try:
            action()
        except (KubectlFailed, OSError, HTTPException, ValueError) as error:
            failure = str(error)
            if (stop or threading.Event()).wait(0.5):
                return
        else:
            return
    raise PatienceLost(f"a person was refused for two minutes: {failure}")


@dataclass
class People:
    """The tenants that agents work in stay, and are changed; others come and go. ``alive`` is what
    is declared, by (team, name); ``visit`` brings a guest to an agent of a tenant."""

    scene: Scene
    teams: list[str]
    chance: random.Random
    visit: Callable[[tuple[str, str], str], None]
    alive: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    steady: set[tuple[str, str]] = field(default_factory=set)
    gone: set[tuple[str, str]] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _made: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def keep(self, agents: list[Agent], team: str, name: str, **spec: Any) -> None:
        """Declare a tenant that stays, with these agents in it."""
        self.steady.add((team, name))
        listed = [
            {"name": one.name, "access": "Steward" if one.steward else "ReadWrite"}
            for one in agents
        ]
        self.alive[team, name] = {"deletionPolicy": "Delete", "agents": listed, **spec}
        self.scene.tenant(team, name, **self.alive[team, name])

    def change(self, place: tuple[str, str], **spec: Any) -> dict[str, Any]:
        """Declare a tenant with some fields changed; what they were."""
        before = {name: self.alive[place][name] for name in spec}
        self.alive[place] |= spec
        persist(lambda: self._declare(place))
        return before

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._work, name="people", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and see to it that everything is declared as it is meant to be."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for place in self.alive:
            persist(lambda place=place: self._declare(place))  # type: ignore[misc]
        for place in self.gone - self.alive.keys():
            persist(lambda place=place: self._delete(place))  # type: ignore[misc]

    def as_declared(self) -> None:
        """Wait until what is declared is Ready, and what was deleted is gone."""
        for team in self.teams:
            self.scene.wait_gone(team, *(n for t, n in self.gone - self.alive.keys() if t == team))
            self.scene.wait_ready(team, *(n for t, n in self.alive if t == team))
        for (team, name), spec in self.alive.items():
            wanted = {one["name"] for one in spec.get("agents", [])} or {"default"}

            def shown(team: str = team, name: str = name) -> set[str]:
                found = self.scene.seen(team, name)
                told = found["status"]["bindings"] if found else []
                return {one["agent"] for one in told}

            eventually(
                lambda shown=shown, wanted=wanted: shown() == wanted,  # type: ignore[misc]
                lambda shown=shown, wanted=wanted: f"agents {shown()}, not {wanted}",  # type: ignore[misc]
            )

    def _work(self) -> None:
        while not self._stop.wait(self.chance.uniform(*_REST)):
            try:
                self._change()
            except PatienceLost as lost:
                self.failures.append(str(lost))
                return

    def _change(self) -> None:
        passing = sorted(self.alive.keys() - self.steady)
        choices = ["new"] * 2 if len(passing) < _MOST else []
        choices += ["rotate", "rotate-keys", "agents", "delete", "again"] if passing else []
        choices += ["rotate steady", "rotate-keys steady"]
        what = self.chance.choice(choices)
        self._made += 1
        if what == "new":
            place = self.chance.choice(self.teams), f"t{self._made}"
            self.alive[place] = {"deletionPolicy": self.chance.choice(["Delete", "Shred"])}
        else:
            steady = what.endswith("steady")
            place = self.chance.choice(sorted(self.steady) if steady else passing)
        self.done.append(f"{what} {'.'.join(place)}")
        if place not in self.steady:
            first, *_ = self.alive[place].get("agents", [{"name": "default"}])
            self.visit(place, first["name"])
        if what in ("delete", "again"):
            self._remove(place, again=what == "again")
            return
        spec = self.alive[place]
        if what.startswith("rotate"):
            kind = what.removesuffix(" steady")
            spec["annotations"] = {
                **spec.get("annotations", {}),
                f"memtenant.dev/{kind}": str(self._made),
            }
        elif what == "agents":
            spec["agents"] = [{"name": "one"}, {"name": "two", "access": "ReadOnly"}]
        persist(lambda: self._declare(place), self._stop)

    def _remove(self, place: tuple[str, str], *, again: bool) -> None:
        spec = self.alive.pop(place)
        self.gone.add(place)
        persist(lambda: self._delete(place), self._stop)
        if again:
            self.alive[place] = spec
            persist(lambda: self._declare(place), self._stop)

    def _declare(self, place: tuple[str, str]) -> None:
        """What is in deletion takes a new spec, and goes with it: that is waited for."""
        with Api.of(self.scene.cluster) as api:
            found = api.get("memorytenants", *place)
        if found is not None and "deletionTimestamp" in found["metadata"]:
            raise OSError(f"{'.'.join(place)} is still in deletion")
        self.scene.tenant(*place, **self.alive[place])

    def _delete(self, place: tuple[str, str]) -> None:
        with Api.of(self.scene.cluster) as api:
            status = api.delete("memorytenants", *place)
        if status not in (200, 202, 404):
            raise OSError(f"the API server answered {status}")
