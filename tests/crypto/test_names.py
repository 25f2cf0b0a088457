from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from memtenant.crypto.names import (
    ALIAS_CHARACTERS,
    agents_alias,
    context_alias,
    session_alias,
    subject_tag,
    user_alias,
)
from memtenant.crypto.primitives import SecretKey
from tests.crypto import independent

NAME_KEY = SecretKey(bytes(range(32)))
ids = st.text(max_size=6) | st.text(st.characters(categories=["Cs", "Lu"]), max_size=3)
"""Any Python text, lone surrogates included."""


@given(ids)
def test_an_alias_is_22_characters_that_no_pattern_gives_a_meaning(user: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{22}", user_alias(NAME_KEY, user))
    assert ALIAS_CHARACTERS == 22


@given(ids, ids)
def test_different_users_have_different_aliases(one: str, other: str) -> None:
    assert (user_alias(NAME_KEY, one) == user_alias(NAME_KEY, other)) is (one == other)


@given(st.tuples(ids, st.none() | ids), st.tuples(ids, st.none() | ids))
def test_different_sessions_have_different_aliases(
    one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    assert (session_alias(NAME_KEY, *one) == session_alias(NAME_KEY, *other)) is (one == other)


@given(ids)
def test_an_id_means_something_else_in_each_kind(text: str) -> None:
    aliases = {f(NAME_KEY, text) for f in (user_alias, session_alias, context_alias)}
    assert len(aliases) == 3
    assert subject_tag(NAME_KEY, text).hex() not in aliases


@given(ids)
def test_another_tenant_names_the_same_user_differently(user: str) -> None:
    other = SecretKey(bytes(range(1, 33)))
    assert user_alias(NAME_KEY, user) != user_alias(other, user)
    assert subject_tag(NAME_KEY, user) != subject_tag(other, user)


@given(st.text(max_size=5), st.text(max_size=5))
def test_a_second_implementation_finds_the_same_names(session: str, user: str) -> None:
    key = NAME_KEY.secret
    assert user_alias(NAME_KEY, user) == independent.alias(key, "user", user)
    assert session_alias(NAME_KEY, session, user) == independent.alias(
        key, "session", session, user
    )
    assert agents_alias(NAME_KEY) == independent.alias(key, "agents")
    assert context_alias(NAME_KEY, session) == independent.alias(key, "context", session)


def test_ids_are_neither_folded_nor_normalised() -> None:
    assert user_alias(NAME_KEY, "Ada") != user_alias(NAME_KEY, "ada")
    assert user_alias(NAME_KEY, "\u00e9") != user_alias(NAME_KEY, "e\u0301")


def test_an_id_of_any_length_has_an_alias() -> None:
    assert len(user_alias(NAME_KEY, "x" * 100_000)) == ALIAS_CHARACTERS
