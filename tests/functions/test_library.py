"""The library's code: the same at every build, and its calls, replies and refusals as such."""

import re
from importlib.resources import files

import pytest

from memtenant.errors import DataError, HistoryDamaged, QuotaExceeded, VersionConflict
from memtenant.functions import Head, HeadState, refusal
from memtenant.functions.fcall import spoken
from memtenant.functions.keyspace import ContextKeys, ConversationKeys
from memtenant.functions.library import libraries, version_of
from memtenant.functions.replies import parse_appended, parse_entries, parse_usage
from memtenant.functions.versions import CURRENT_VERSION, PREVIOUS_VERSION
from tests.functions.catalogue import Place, declared, every_call, name_of, registered
from tests.stores.operators import ACME


def lua_files() -> dict[str, str]:
    folder = files("memtenant.functions")
    return {one.name: one.read_text() for one in folder.iterdir() if one.name.endswith(".lua")}


def test_every_lua_file_is_part_of_the_library_once() -> None:
    code = libraries()[0].code
    for name, text in lua_files().items():
        assert code.count(text.strip()) == 1, name


def test_the_code_is_the_same_at_every_build() -> None:
    before = libraries()
    libraries.cache_clear()
    assert libraries() == before
    assert libraries()[0].code.startswith("#!lua name=memtenant_2\n")


def test_every_functions_name_carries_the_version() -> None:
    assert len(registered()) == 38
    assert {words[1] for words in every_call(Place(ACME), 1).values()} == {
        f"mt2_{name}" for name in registered()
    }
    assert [one.name for one in libraries()] == ["memtenant_2", "memtenant_1"]


def test_a_store_that_is_a_version_behind_is_asked_in_that_version() -> None:
    calls = tuple(every_call(Place(ACME), 1).values())
    commands = (*calls, ("HGET", "mt2_append", "field"))
    before = spoken(commands, PREVIOUS_VERSION)
    assert [one[1] for one in before[:-1]] == [f"mt1_{name_of(one)}" for one in calls]
    assert [one[2:] for one in before] == [one[2:] for one in commands]
    assert before[-1] == commands[-1]
    assert spoken(commands, CURRENT_VERSION) == commands


def test_every_refusal_of_the_library_has_an_error_of_its_own() -> None:
    codes = set(re.findall(r"'MT_([A-Z_]+)", libraries()[0].code))
    assert codes >= {"QUOTA", "HELD", "READONLY", "TYPE", "ARGUMENT"}
    for code in codes:
        error = refusal(f"MT_{code} memory 1 2 3")
        assert isinstance(error, DataError), code


def test_lines_are_short_and_hold_no_tabs() -> None:
    for name, text in lua_files().items():
        for number, line in enumerate(text.splitlines(), 1):
            assert len(line) <= 100, f"{name}:{number}"
            assert "\t" not in line, f"{name}:{number}"
            assert line == line.rstrip(), f"{name}:{number}"


def test_nothing_is_handed_to_the_server_that_may_be_nil() -> None:
    """Numbers go through `decimal`; a bare `tostring` writes 1.7e+12."""
    for name, text in lua_files().items():
        calls = re.findall(r"redis\.p?call\((.*)", text)
        assert not any("tostring" in call for call in calls), name


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("memtenant_1", 1), ("memtenant_12", 12), ("memtenant_", None), ("memtenant_x", None)),
        *(("mylib", None), ("memtenant", None), ("memtenant_1 ", None)),
    ],
)
def test_whose_library_it_is(name: str, version: int | None) -> None:
    assert version_of(name) == version


def test_all_keys_of_a_call_share_the_tenants_hash_tag() -> None:
    for name, words in every_call(Place(ACME), 1).items():
        for key in declared(words):
            assert key.startswith(b"mt:{support.acme}:"), name


@pytest.mark.parametrize(
    ("scope", "alias"), [("", "a"), ("s", ""), ("a:b", "c"), ("a", "b:l"), ("c", "context")]
)
def test_a_scope_or_alias_that_could_be_another_key_is_refused(scope: str, alias: str) -> None:
    with pytest.raises(ValueError, match="colon"):
        ConversationKeys.of(ACME, scope, alias)
    with pytest.raises(ValueError, match="colon"):
        ContextKeys.of(ACME, "a:v")


def test_a_quota_says_which_how_much_and_when() -> None:
    error = refusal("MT_QUOTA writes_per_second 500 500 120")
    assert isinstance(error, QuotaExceeded)
    assert (error.limit, error.used, error.allowed) == ("writes_per_second", 500, 500)
    assert (error.retry_after, error.retryable) == (0.12, True)
    error = refusal("MT_QUOTA memory 9 10 0")
    assert isinstance(error, QuotaExceeded)
    assert (error.retry_after, error.retryable) == (None, False)


@pytest.mark.parametrize("text", ["NOPERM no", "WRONGTYPE x", "", "MT_", "MT_NEW thing", "OOM x"])
def test_other_errors_are_nobodys(text: str) -> None:
    assert refusal(text or "ERR") is None


@pytest.mark.parametrize(
    "reply",
    [None, b"ok", [], [b"ok"], [b"new", 1], [b"ok", b"1"], [None], [b"ok", 1, 2, 3, 4, 5, 6], 7],
)
def test_a_reply_of_another_shape_is_not_taken_for_one(reply: object) -> None:
    for parse in (parse_entries, parse_usage):
        with pytest.raises(DataError, match="does not understand"):
            parse(reply)


def test_a_conflict_carries_the_head() -> None:
    with pytest.raises(VersionConflict) as conflict:
        parse_appended([b"conflict", 7, 3, 100])
    assert conflict.value.current == Head(7, 3)


def test_a_head_of_another_length_is_damage() -> None:
    packed = bytes(range(46))
    assert HeadState.parse(packed).to_bytes() == packed
    for wrong in (b"", packed[1:], packed + b"x"):
        with pytest.raises(HistoryDamaged):
            HeadState.parse(wrong)
