"""The full matrix: every command that the server lists, on keys of every kind, in every state.

ACL DRYRUN asks the server itself, so the matrix holds for a (server version, rule template) and is
run once for each. What a user may do is stated here a second time, by kind of key and independent
of the rules in `memtenant.rules.acl`: whatever the server allows beyond it is a leak.

FCALL is allowed on every key of the tenant that it declares; what the Function then does is
checked by the server command by command. DRYRUN cannot show that, so it is no leak here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from redis.exceptions import ResponseError

from memtenant.rules.acl import (
    AccessMode,
    AccessState,
    AclUser,
    AgentAccess,
    render_user,
    setuser_args,
    template_digest,
)
from memtenant.stores.arguments import CallForm, CommandDescription, describe_commands
from memtenant.stores.batches import batches
from memtenant.stores.connection import Command, NodeClient, Reply
from memtenant.stores.fence import Term, run_fenced
from memtenant.stores.nodes import NodeFacts
from memtenant.stores.refusals import required
from memtenant.tenancy import keys
from memtenant.tenancy.identity import TenantId

__all__ = ["REVIEWED_KEYLESS", "MatrixProof", "prove_matrix"]

PROOF_USER = "mt.proof"
"""The user that the matrix is asked about: without a password and off. Not a tenant's name."""

_OWN = TenantId("memtenant-proof", "own")
_FOREIGN = TenantId("memtenant-proof", "own2")
_AGENT = "agent"

REVIEWED_KEYLESS = frozenset(
    {
        "acl|whoami",  # the own name
        "auth",  # no rule can deny these four
        "hello",
        "quit",
        "reset",
        "client|setinfo",  # the own connection
        "client|setname",
        "discard",
        "echo",
        "exec",
        "fcall",  # a Function's own commands are checked one by one
        "fcall_ro",
        "multi",
        "ping",
        "time",
        "unwatch",
        "wait",  # the number of replicas, which is nobody's secret
    }
)
"""Commands that a tenant may send without a key; each was read for what it shows of others."""

# A Steward has the rules of ReadWrite, and whoever is off has none, whatever else holds.
_RENDERINGS = tuple(
    (access, state)
    for access in (AgentAccess.READ_ONLY, AgentAccess.READ_WRITE)
    for state in (
        AccessState(),
        AccessState(over_quota=True),
        AccessState(held=True),
        AccessState(over_quota=True, held=True),
        AccessState(off=True),
    )
)

_NEEDED = frozenset({"fcall", "get", "hget", "lrange", "rpush"})
_FCALLS = frozenset({"fcall", "fcall_ro"})
_REMOVALS = frozenset(
    {
        *("del", "unlink", "getdel", "expire", "expireat", "pexpire", "pexpireat"),
        *("lpop", "rpop", "ltrim", "lrem"),
        *("hdel", "zrem", "zremrangebyscore", "zremrangebyrank"),
    }
)
_HEAD_WRITES = frozenset({"hset", "hincrby", "persist"})


@dataclass(frozen=True, slots=True)
class MatrixProof:
    """What the server answered. ``leaks`` and ``not_proven`` say command, state and key."""

    server: str
    template: str
    checked: int
    denied: int
    not_proven: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything was asked, understood and as it should be."""
        return not self.leaks and not self.not_proven

    @classmethod
    def of_all(cls, proofs: Sequence[MatrixProof]) -> MatrixProof:
        """One proof for a store whose nodes run different versions; at least one proof."""
        return cls(
            server=", ".join(proof.server for proof in proofs),
            template=proofs[0].template,
            checked=sum(proof.checked for proof in proofs),
            denied=sum(proof.denied for proof in proofs),
            not_proven=tuple(text for proof in proofs for text in proof.not_proven),
            leaks=tuple(text for proof in proofs for text in proof.leaks),
        )


@dataclass(frozen=True, slots=True)
class _Question:
    """One DRYRUN: the command's words, the keys among them, whether the server may allow it."""

    label: str
    words: tuple[str, ...]
    keys: tuple[str, ...]
    allowed: bool


@dataclass(slots=True)
class _Findings:
    checked: int = 0
    denied: int = 0
    not_proven: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The node, and the user about whom it is asked; ``own_keys`` as in `prove_matrix`. ``keys``:
    which words of a call are its keys, by the server's own account, which no user's rules change:
    asked once for each call."""

    node: NodeClient
    user: str
    own_keys: bool
    keys: dict[tuple[str, ...], frozenset[str]] = field(default_factory=dict)

    async def dryrun(self, calls: Sequence[Sequence[str]]) -> list[Reply]:
        """What the node says of each call, in batches."""
        answers: list[Reply] = []
        for batch in batches(calls, _BATCH):
            commands: list[Command] = [("ACL", "DRYRUN", self.user, *words) for words in batch]
            answers += await self.node.run(commands)
        return answers

    async def learn_keys(self, calls: Sequence[tuple[str, ...]]) -> None:
        """Fill ``keys``; none where the server does not understand a call."""
        for batch in batches((words for words in calls if words not in self.keys), _BATCH):
            replies = await self.node.run([("COMMAND", "GETKEYS", *words) for words in batch])
            for words, reply in zip(batch, replies, strict=True):
                told = reply if isinstance(reply, list) else []
                self.keys[words] = frozenset(key.decode("utf-8", "replace") for key in told)


async def prove_matrix(
    node: NodeClient,
    facts: NodeFacts,
    commands: frozenset[str],
    term: Term,
    *,
    own_keys: bool = False,
) -> MatrixProof:
    """Ask the node about every command that it knows, in every state of every access.

    ``commands`` are those that the rules are rendered with: those that all nodes of the store know.
    ``own_keys``: of the tenant's content an agent reaches only its own (Strict isolation).
    Leaves nothing behind, and removes what an operator that was killed left. Raises
    `StoreUnavailable`, `StoreRefused` or `FencedOut`.
    """
    described = await describe_commands(node, facts.commands)
    findings = _Findings()
    # Two stores may be declared on one server, and prove at once: each with a user of its own.
    proof_user = f"{PROOF_USER}-{term.number}-{secrets.token_hex(4)}"
    asked = _Asked(node, proof_user, own_keys)
    await _drop_leftovers(node, term)
    for name in sorted(facts.commands - described.keys()):
        findings.not_proven.append(f"{name}: the server lists it but does not describe it")
    try:
        for access, state in _RENDERINGS:
            user = _sample_user(proof_user, access, state, commands, own_keys)
            await _set(node, term, user)
            read_only = access is AgentAccess.READ_ONLY and not state.off
            mode = AccessMode.HELD_OVER_QUOTA if read_only else state.mode
            await _ask_everything(asked, described, mode, f"{access}, {state.mode}", findings)
    finally:
        await run_fenced(node, term, [("ACL", "DELUSER", proof_user)])
    return MatrixProof(
        server=f"{facts.flavour} {facts.version}",
        template=template_digest(commands, own_keys=own_keys),
        checked=findings.checked,
        denied=findings.denied,
        not_proven=tuple(findings.not_proven),
        leaks=tuple(findings.leaks),
    )


async def _drop_leftovers(node: NodeClient, term: Term) -> None:
    """Remove the proof users of earlier terms: whoever made them was stopped in the middle."""
    reply = await node.call("ACL", "USERS")
    names = (name.decode("utf-8", "replace") for name in reply) if isinstance(reply, list) else ()
    leftovers = [name for name in names if _is_earlier(name, term)]
    if leftovers:
        await run_fenced(node, term, [("ACL", "DELUSER", *leftovers)])


def _is_earlier(name: str, term: Term) -> bool:
    """Whether it is a proof user of a term before this one."""
    found = re.fullmatch(rf"{re.escape(PROOF_USER)}-([0-9]+)-[0-9a-f]+", name)
    return found is not None and int(found.group(1)) < term.number


def _sample_user(
    name: str,
    access: AgentAccess,
    state: AccessState,
    commands: frozenset[str],
    own_keys: bool,
) -> AclUser:
    user = render_user(
        _OWN,
        _AGENT,
        "a",
        access=access,
        state=state,
        password_hashes=(),
        commands=commands,
        own_keys=own_keys,
    )
    return replace(user, name=name, enabled=False)


async def _set(node: NodeClient, term: Term, user: AclUser) -> None:
    reply = (await run_fenced(node, term, [("ACL", "SETUSER", *setuser_args(user))]))[0]
    required(reply, node.address)


async def _ask_everything(
    asked: _Asked,
    described: dict[str, CommandDescription],
    mode: AccessMode,
    label: str,
    findings: _Findings,
) -> None:
    """First which commands are denied outright, whatever their arguments; then, for the others,
    every form with every kind of key."""
    first = {name: one.forms[0] for name, one in described.items()}
    answers = await asked.dryrun([_filled(form, _own_content(mode)) for form in first.values()])
    open_commands: list[CommandDescription] = []
    containers = {name.partition("|")[0] for name in described if "|" in name}
    for name, answer in zip(first, answers, strict=True):
        if name in containers and "not found" in str(answer):
            continue  # cannot be called without a subcommand, and each of those is asked about
        findings.checked += 1
        if _denies_command(answer):
            findings.denied += 1
        elif isinstance(answer, ResponseError):
            findings.not_proven.append(f"{name} ({label}): {answer}")
        else:
            open_commands.append(described[name])
    if mode is not AccessMode.OFF:
        # Else a server that denies everything, or a broken rendering, would look like isolation.
        for name in sorted(_NEEDED - {command.name for command in open_commands}):
            findings.not_proven.append(f"{name} ({label}): denied, but every agent needs it")
    for command in open_commands:
        if not command.keyed:
            await _ask_keyless(asked, command, label, findings)
    keyed = [command for command in open_commands if command.keyed]
    await _ask_keyed(asked, keyed, mode, label, findings)


async def _ask_keyed(
    asked: _Asked,
    commands: Sequence[CommandDescription],
    mode: AccessMode,
    label: str,
    findings: _Findings,
) -> None:
    questions = [
        question
        for command in commands
        for form in command.forms
        for question in _questions(asked, command, form, mode, label)
    ]
    calls = [question.words for question in questions]
    await asked.learn_keys(calls)
    for question, answer in zip(questions, await asked.dryrun(calls), strict=True):
        findings.checked += 1
        what = f"{' '.join(question.words)} ({question.label})"
        understood = asked.keys[question.words] == frozenset(question.keys)
        if isinstance(answer, ResponseError) or not understood:
            findings.not_proven.append(f"{what}: the server did not understand the call")
        elif answer != b"OK":
            findings.denied += 1
        elif not question.allowed:
            findings.leaks.append(f"{what}: allowed")


async def _ask_keyless(
    asked: _Asked, command: CommandDescription, label: str, findings: _Findings
) -> None:
    if command.name == "select":
        answers = await asked.dryrun([("SELECT", "0"), ("SELECT", "1")])
        findings.checked += 2
        if _denies_command(answers[1]):
            findings.denied += 1
        else:
            findings.leaks.append(f"SELECT 1 ({label}): allowed")
    elif command.name not in REVIEWED_KEYLESS:
        findings.leaks.append(f"{command.name} ({label}): allowed without a key and not reviewed")


def _questions(
    asked: _Asked, command: CommandDescription, form: CallForm, mode: AccessMode, label: str
) -> Iterator[_Question]:
    """The form with each kind of key in all places, and with a foreign key in each place while
    the others hold own ones."""
    own = _own_content(mode)
    for kind, key, allowed in (*_kinds(command, mode), *_shares(asked, command, mode)):
        chosen = (key,) * form.places
        yield _Question(f"{label}, {kind}", form.call(chosen), chosen, allowed)
    if form.places > 1:
        for place in range(form.places):
            for key in (keys.records(_FOREIGN) + "s:c:l", keys.access(_OWN)):
                mixed = tuple(key if at == place else own for at in range(form.places))
                allowed = command.name in _FCALLS and key == keys.access(_OWN)
                yield _Question(f"{label}, mixed", form.call(mixed), mixed, allowed)


def _kinds(command: CommandDescription, mode: AccessMode) -> Iterator[tuple[str, str, bool]]:
    """Kinds of keys: a name, a key of the kind, and whether the command may touch it."""
    name = command.name
    calls = name in _FCALLS
    off = mode is AccessMode.OFF
    appends = mode in (AccessMode.READ_WRITE, AccessMode.HELD)
    for foreign in (
        keys.records(_FOREIGN) + "s:c:l",
        keys.audit_queue(_FOREIGN),
        keys.erasure_requests(_FOREIGN),
        keys.erasure_receipts(_FOREIGN),
        keys.dek(_FOREIGN, "x"),
        keys.limits(_FOREIGN),
        keys.STORE_EPOCH,
        keys.STORE_OWNER,
        "somebody-elses-key",
    ):
        yield "foreign", foreign, False
    yield "o:limits", keys.limits(_OWN), not off and (calls or name in ("hget", "hmget"))
    yield "o:access", keys.access(_OWN), not off and calls
    receipts = keys.erasure_receipts(_OWN)
    yield "o:erasures", receipts, not off and (calls or name in ("hget", "hgetall"))
    yield "queue", keys.audit_queue(_OWN), not off and (calls or name == "rpush")
    yield "requests", keys.erasure_requests(_OWN), not off and (calls or name == "rpush")
    index = {"lrange", "rpush"} if appends else {"lrange"}
    own = keys.own_alias(_AGENT, "x")
    yield "index", keys.subject_index(_OWN, own), not off and (calls or name in index)
    wrapped = {"hget", "hsetnx"} if appends else {"hget"}
    for kind, alias in (("dek", own), ("shared dek", keys.shared_alias("x"))):
        yield kind, keys.dek(_OWN, alias), not off and (calls or name in wrapped)
    yield "context", f"{keys.records(_OWN)}c:x", calls or _may_touch_content(command, mode, "")
    for part in ("l", "h", "s"):
        key = f"{keys.records(_OWN)}{keys.own_scope(_AGENT)}:c:{part}"
        yield f"content :{part}", key, calls or _may_touch_content(command, mode, part)


def _shares(
    asked: _Asked, command: CommandDescription, mode: AccessMode
) -> Iterator[tuple[str, str, bool]]:
    """What belongs to another agent of the same tenant, where each has its own."""
    if not asked.own_keys:
        return
    allowed = mode is not AccessMode.OFF and command.name in _FCALLS
    for other in ("agent2", "age"):
        yield "another's content", f"{keys.records(_OWN)}{keys.own_scope(other)}:c:l", allowed
        yield "another's dek", keys.dek(_OWN, keys.own_alias(other, "x")), allowed
        yield "another's index", keys.subject_index(_OWN, keys.own_alias(other, "x")), allowed
    yield "content of nobody", f"{keys.records(_OWN)}_:c:l", allowed


def _may_touch_content(command: CommandDescription, mode: AccessMode, part: str) -> bool:
    name = command.name
    if mode is AccessMode.OFF:
        return False
    if not command.writes or mode is AccessMode.READ_WRITE:
        return True
    if mode is AccessMode.OVER_QUOTA:
        return name in _REMOVALS or (part == "h" and name in _HEAD_WRITES)
    if mode is AccessMode.HELD:
        return (part == "l" and name == "rpush") or (part == "h" and name in _HEAD_WRITES)
    return False


def _own_content(mode: AccessMode) -> str:
    part = "h" if mode is AccessMode.HELD else "l"
    return f"{keys.records(_OWN)}{keys.own_scope(_AGENT)}:c:{part}"


def _filled(form: CallForm, key: str) -> tuple[str, ...]:
    return form.call((key,) * form.places)


def _denies_command(answer: Reply) -> bool:
    return isinstance(answer, bytes) and b"permissions to run the" in answer


_BATCH = 1000
