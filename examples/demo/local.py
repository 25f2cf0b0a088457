"""`make demo`: the same story without a cluster, by the commands that a person would type.

Everything is in a state folder, the Valkey too. It stays there when the demo ends, so that you can
go on; the server is stopped.
"""

import argparse
import asyncio
import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import agent
import redis
from complying import Complying
from remembering import FAILURE, Remembering
from story import Story, StoryBroken, stop_on_sigterm

from memtenant.errors import MemtenantError
from memtenant.stores import embedded
from memtenant.stores.embedded import EmbeddedStore
from memtenant.stores.instances import EmbeddedInstances

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MANIFESTS = HERE.relative_to(ROOT) / "manifests"
NOTE, NEIGHBOURS_NOTE = "mt:{support.acme}:r:note", "mt:{support.globex}:r:note"
READY, CHANGES, UNSETTLED = 0, 2, 3  # exit codes of `memtenant`
_LONGEST = 110


class Demo:
    """The state folder and the steps of the story in their order."""

    def __init__(self, story: Story, state: Path) -> None:
        self.story = story
        self.state = state
        self.env = os.environ | {
            "MEMTENANT_STATE": str(state),
            "SERVICE_BINDING_ROOT": str(state / "bindings" / "support"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def tell(self) -> None:
        """The whole story."""
        self.look_first()
        self.declare()
        self.agents_at_work()
        self.agents_remember()
        self.drift()
        self.quota()
        self.rotation()
        self.strict()
        self.retain()
        self.delete()
        self.hold_and_shred()
        Complying(self.story, self.state, self._run).tell()

    def look_first(self) -> None:
        """What would be done, before anything is."""
        story = self.story
        story.chapter("Look first: what would be done?")
        story.tell("A platform team declares a store and policies, product teams their tenants.")
        story.command("export", f"MEMTENANT_STATE={self.state}")
        self.memtenant("validate", "-f", str(MANIFESTS / "1-platform.yaml"))
        self.memtenant("validate", "-f", str(MANIFESTS / "2-tenants.yaml"))
        self.memtenant(
            *("plan", "-f", str(MANIFESTS / "1-platform.yaml")),
            *("-f", str(MANIFESTS / "2-tenants.yaml")),
            code=CHANGES,
            lines=9,
        )
        story.output("…")
        found = self.on_store("")
        story.check(found == (0, 0), "the plan reads a server of its own and writes nothing", found)

    def declare(self) -> None:
        """Store, policies, tenants: applied, and Ready."""
        story = self.story
        story.chapter("Apply: an embedded Valkey, three isolated tenants")
        self.memtenant("apply", "-f", str(MANIFESTS / "1-platform.yaml"))
        self.memtenant("apply", "-f", str(MANIFESTS / "2-tenants.yaml"))
        said = self.memtenant("get", "tenants")
        story.check(said.count("True") == 3, "three tenants are Ready", said)
        said = self.memtenant("apply")
        changes = [
            line for line in said.splitlines() if line.startswith("  ") and "agent" not in line
        ]
        story.check(not changes, "applied again, nothing changes", changes)

    def agents_at_work(self) -> None:
        """An agent reads its binding and works; what is not its own is denied."""
        story = self.story
        story.chapter("An agent opens its binding and works; what is not its own is denied")
        story.command("export", f"SERVICE_BINDING_ROOT={self.env['SERVICE_BINDING_ROOT']}")
        self.agent("globex-default", "SET", NEIGHBOURS_NOTE, "Globex only")
        said = self.agent("acme-triage", "SET", NOTE, "the customer prefers e-mail")
        story.check(said == "OK", "its own memory is writable", said)
        said = self.agent("acme-triage", "GET", NEIGHBOURS_NOTE)
        story.check(said.startswith("NOPERM"), "the neighbour's note is out of reach", said)
        said = self.agent("acme-triage", "HSET", "mt:{support.acme}:o:limits", "memory", "9999999")
        story.check(said.startswith("NOPERM"), "so is what the operator decides on", said)
        said = self.agent("acme-triage", "KEYS", "*")
        story.check(said.startswith("NOPERM"), "and the names of all keys", said)
        said = self.agent("acme-answers", "DEL", NOTE)
        story.check(said.startswith("NOPERM"), "the ReadOnly agent does not write", said)
        said = self.agent("acme-answers", "GET", NOTE)
        story.check(said == "the customer prefers e-mail", "but it reads", said)

    def agents_remember(self) -> None:
        """The same by memtenant's SDK, and what it adds."""
        Remembering(
            self.story, self.state / "bindings", self._as_agent, self.memtenant, self.newest
        ).tell()
        root = self.env["SERVICE_BINDING_ROOT"]
        self.story.command("export", f"SERVICE_BINDING_ROOT={root}")

    def drift(self) -> None:
        """A user vanishes from the server, and comes back as it was."""
        story = self.story
        story.chapter("Somebody deletes a user behind the operator's back")
        user = self.binding("globex-default")["username"]
        story.command("valkey-cli", "ACL", "DELUSER", user)
        with self.admin() as admin:
            agent.ask(admin, "ACL", "DELUSER", user)
            self.memtenant("apply")
            story.check(user in agent.ask(admin, "ACL", "USERS"), "it is back, password and all")
        said = self.agent("globex-default", "GET", NEIGHBOURS_NOTE)
        story.check(said == "Globex only", "its agent works with the binding that it has", said)

    def quota(self) -> None:
        """Over the limit writing is off, reading and deleting are not; it comes back."""
        story = self.story
        story.chapter("A tenant uses up its quota of 1Mi")
        story.tell("The agent writes 1.2 MB. In a cluster the operator measures every minute.")
        with self.connected("acme-triage") as client:
            for number in range(12):
                agent.ask(client, "SET", f"mt:{{support.acme}}:r:big:{number}", "x" * 100_000)
            self.memtenant("apply")
            said = self.agent("acme-triage", "SET", NOTE, "one more")
            story.check(said.startswith("NOPERM"), "it cannot write any more", said)
            said = self.agent("acme-triage", "GET", NOTE)
            story.check(said == "the customer prefers e-mail", "it can still read", said)
            story.tell("The agent deletes what it no longer needs.")
            for number in range(12):
                agent.ask(client, "DEL", f"mt:{{support.acme}}:r:big:{number}")
        self.memtenant("apply")
        said = self.agent("acme-triage", "SET", NOTE, "they prefer a call")
        story.check(said == "OK", "it writes again", said)

    def rotation(self) -> None:
        """New credentials; an open connection goes on, the old user goes when it is idle."""
        story = self.story
        story.chapter("Credentials rotate under an open connection")
        before = self.binding("acme-triage")["username"]
        with self.connected("acme-triage") as client, self.admin() as admin:
            agent.ask(client, "GET", NOTE)
            self.memtenant("rotate", "support/acme")
            after = self.binding("acme-triage")["username"]
            story.check(before != after, f"the binding shows {after} instead of {before}")
            said = agent.ask(client, "SET", NOTE, "still here")
            story.check(said == "OK", "the open connection of the old one goes on", said)
            said = self.agent("acme-triage", "GET", NOTE)
            story.check(said == "still here", "the new credential works beside it", said)
            client.close()
            story.tell("The agent drops the old connection; minOverlap (1s here) passes.")
            time.sleep(2)
            self.memtenant("apply")
            users = agent.ask(admin, "ACL", "USERS")
            story.check(before not in users, "the old user is idle, so it is revoked", users)

    def strict(self) -> None:
        """An instance of its own, and agents that share no conversation."""
        story = self.story
        story.chapter("A Strict tenant: a Valkey of its own, and agents kept apart")
        self.memtenant("apply", "-f", str(MANIFESTS / "4-strict.yaml"))
        ports = [self.binding(name)["port"] for name in ("clinic-intake", "acme-triage")]
        story.check(ports[0] != ports[1], "it is another server than everybody else's", ports)
        note = "mt:{support.clinic}:r:intake_:note"
        said = self.agent("clinic-intake", "SET", note, "for the doctor only")
        story.check(said == "OK", "its agent's own memory is writable", said)
        said = self.agent("clinic-billing", "GET", note)
        story.check(
            said.startswith("NOPERM"), "the other agent of the same tenant has its own", said
        )
        self.memtenant("delete", "tenant/support/clinic")
        left = list((self.state / "instances").iterdir())
        story.check(not left, "deleted, it takes its server along", left)

    def retain(self) -> None:
        """Retain: access goes, data and keys stay; declared again, the tenant finds them."""
        story = self.story
        story.chapter("Deleted with deletionPolicy Retain: acme")
        self.memtenant("delete", "tenant/support/acme")
        users, keys = self.on_store("support.acme")
        story.check(users == 0 and keys > 0, "its users are gone, its data is kept", (users, keys))
        story.tell("Declared again in the same namespace, it is the same tenant.")
        self.memtenant("apply", "-f", str(MANIFESTS / "2-tenants.yaml"))
        said = self.agent("acme-triage", "GET", NOTE)
        story.check(said == "still here", "it remembers, with a new credential", said)

    def delete(self) -> None:
        """Delete: access and data go."""
        story = self.story
        story.chapter("Deleted with deletionPolicy Delete: globex")
        self.memtenant("delete", "tenant/support/globex")
        found = self.on_store("support.globex")
        story.check(found == (0, 0), "no user and no key of it is left", found)

    def hold_and_shred(self) -> None:
        """A legal hold refuses the deletion; released, Shred destroys keys, then data."""
        story = self.story
        story.chapter("Deleted with deletionPolicy Shred, under a legal hold: doe")
        note = "mt:{legal.doe}:r:case:l"
        with self.connected("doe-default", "legal") as client:
            agent.ask(client, "RPUSH", note, "evidence")
            said = agent.ask(client, "DEL", note)
        story.command("valkey-cli", "DEL", note)
        story.denied(said)
        story.check(said.startswith("NOPERM"), "under a hold nothing is removed", said)
        said = self.memtenant("delete", "tenant/legal/doe", code=UNSETTLED)
        _, keys = self.on_store("legal.doe")
        story.check("Doe v. Acme" in said and keys > 0, "it stays, and so does its evidence", said)
        story.tell("Counsel releases the hold.")
        self.memtenant("apply", "-f", str(MANIFESTS / "3-release-hold.yaml"))
        found = self.on_store("legal.doe")
        story.check(found == (0, 0), "its keys, its users and its data are gone", found)

    def memtenant(self, *arguments: str, code: int = READY, lines: int = 30) -> str:
        """Run the command as typed and show what matters of its output; it must end so."""
        said = self._run("memtenant", *arguments, code=code)
        self.story.output("\n".join(_what_changed(said)[:lines]))
        return said

    def agent(self, binding: str, *command: str) -> str:
        """Run one command as an agent; the server's answer."""
        said = self._run("python", "examples/demo/agent.py", binding, *command)
        answer = said.split("\n", 1)[1].strip()
        (self.story.denied if answer.startswith("NOPERM") else self.story.output)(answer)
        return answer

    def _as_agent(self, *words: str, bindings: Path, code: int) -> str:
        return self._run(*words, code=code, SERVICE_BINDING_ROOT=str(bindings))

    def _run(self, *words: str, code: int = READY, **environ: str) -> str:
        """What it printed; where it had to fail, its error too."""
        self.story.command(*words)
        env = self.env | environ
        answer = subprocess.run(
            words, cwd=ROOT, env=env, capture_output=True, text=True, check=False
        )
        said = answer.stdout + answer.stderr
        if answer.returncode != code:
            raise StoryBroken(
                f"{shlex.join(words)} ended with {answer.returncode}, not {code}:\n{said.strip()}"
            )
        return said if code == FAILURE else answer.stdout

    def binding(self, name: str, namespace: str = "support") -> dict[str, str]:
        """The fields of a binding: a file each."""
        folder = self.state / "bindings" / namespace / name
        return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}

    @contextlib.contextmanager
    def connected(self, binding: str, namespace: str = "support") -> Iterator["redis.Redis"]:
        """A connection with the credentials that the binding shows now."""
        with agent.connect(self.state / "bindings" / namespace / binding) as client:
            yield client

    @contextlib.contextmanager
    def admin(self) -> Iterator["redis.Redis"]:
        """A connection as the server's administrator."""
        with agent.open_uri(self.admin_uri()) as client:
            yield client

    def admin_uri(self) -> str:
        """How to reach the embedded Valkey as its administrator."""
        found = self.server()
        if found is None:
            raise StoryBroken("the embedded Valkey does not run")
        return f"redis://{found.username}:{found.password}@{found.address}"

    def server(self) -> EmbeddedStore | None:
        """The embedded Valkey, if it runs."""
        return asyncio.run(embedded.running(self.state / "valkey"))

    def newest(self, pattern: str) -> tuple[str, bytes]:
        """A list's name, and its first entry as the server holds it."""
        with self.admin() as admin:
            _, names = admin.execute_command("SCAN", "0", "MATCH", pattern, "COUNT", "1000")  # type: ignore[no-untyped-call]
        name = str(min(names))
        with redis.Redis.from_url(self.admin_uri()) as undecoded:
            return name, bytes(undecoded.execute_command("LINDEX", name, "0"))

    def on_store(self, tenant: str) -> tuple[int, int]:
        """How many users and keys the store has of a tenant; of all, if the name is empty."""
        user, key = (f"mt.{tenant}.", f"mt:{{{tenant}}}:*") if tenant else ("mt.", "mt:*")
        with self.admin() as admin:
            users = agent.ask(admin, "ACL", "USERS").count(f"'{user}")
            _, keys = admin.execute_command("SCAN", "0", "MATCH", key, "COUNT", "1000")  # type: ignore[no-untyped-call]
        return users, len(keys)


def _what_changed(said: str) -> list[str]:
    """The lines of objects that something happened to, without the list of all bindings."""
    lines = said.split("\nBindings:\n")[0].splitlines()
    following = [*lines[1:], ""]
    return [
        line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
        for line, after in zip(lines, following, strict=True)
        if not line.endswith(" unchanged") or after.startswith(" ")
    ]


def main() -> int:
    """0 if everything went as told, 1 if not, 130 if interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, help="an empty or new folder, else a temporary one")
    options = parser.parse_args()
    stop_on_sigterm()
    state = (options.state or Path(tempfile.mkdtemp(prefix="memtenant-demo-"))).resolve()
    story = Story()
    story.title(
        "memtenant without a cluster: declared tenants become isolated memory.",
        "Commands are run as shown, from the project's folder. Of what they print, what did not "
        "change is left out and long lines are cut.",
    )
    demo = Demo(story, state)
    try:
        demo.tell()
        story.chapter("What is there now")
        demo.memtenant("get")
        demo.memtenant("local", "stop")
    except (StoryBroken, MemtenantError, redis.RedisError) as error:
        story.broken(error)
        return 1
    except KeyboardInterrupt:
        story.tell(f"Interrupted: the server is stopped; its folder is {state}")
        return 130
    finally:
        # Whatever happened, no server stays behind.
        with contextlib.suppress(MemtenantError):
            asyncio.run(embedded.stop(state / "valkey"))
        with contextlib.suppress(MemtenantError):
            asyncio.run(EmbeddedInstances(state / "instances").stop())
    story.end(
        f"The state folder stays: {state}",
        "  . .venv/bin/activate",
        f"  export MEMTENANT_STATE={state}",
        "  memtenant apply                     # starts the server again",
        "  memtenant get tenant acme -n support -o yaml",
        "  memtenant plan -f examples/resources/4-minimal-isolation.yaml",
        "  memtenant local reset               # removes it all",
        "With Kubernetes: make demo-cluster",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
