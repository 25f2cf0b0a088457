"""Where a primary is, by what Sentinels and nodes of a Cluster say."""

import pytest

from memtenant.memory.topology import Way, asking, moved_to, primary_from, redirected
from memtenant.memory.wire import ErrorReply

HERE = ("10.0.0.1", 6379)


def test_a_sentinel_tells_the_primary_or_why_not() -> None:
    assert primary_from([b"OK", [b"10.0.0.2", b"6380"]]) == ("10.0.0.2", 6380)
    with pytest.raises(ConnectionError, match="no primary of that name"):
        primary_from([b"OK", None])
    with pytest.raises(ConnectionError, match="WRONGPASS"):
        primary_from([ErrorReply("WRONGPASS invalid"), ErrorReply("NOAUTH required")])


def test_a_node_says_that_it_has_the_slot_or_who_has() -> None:
    assert moved_to(b"1", HERE) is None
    assert moved_to(None, HERE) is None
    assert moved_to(ErrorReply("NOPERM no"), HERE) is None  # whoever denies it, serves it
    assert moved_to(ErrorReply("MOVED 3999 10.0.0.2:6380"), HERE) == ("10.0.0.2", 6380)
    assert moved_to(ErrorReply("MOVED 3999 fd00::1:6380"), HERE) == ("fd00::1", 6380)
    assert moved_to(ErrorReply("MOVED 3999 :6380"), HERE) == ("10.0.0.1", 6380)
    with pytest.raises(ConnectionError, match="down"):
        moved_to(ErrorReply("CLUSTERDOWN Hash slot not served"), HERE)
    with pytest.raises(ConnectionError, match="not known"):
        moved_to(ErrorReply("MOVED"), HERE)


def test_only_what_a_node_has_no_more_is_asked_elsewhere_and_wait_goes_along() -> None:
    commands = [("RPUSH", b"a", b"f"), ("RPUSH", b"b", b"f"), ("WAIT", 1, 1000)]
    ask = ErrorReply("ASK 3999 10.0.0.2:6380")
    assert redirected([b"1", None, 1], commands, HERE) is None
    assert redirected([b"1", ask, 1], commands, HERE) == (("10.0.0.2", 6380), (1, 2))
    assert asking(commands[1:2]) == [("ASKING",), ("RPUSH", b"b", b"f")]


def test_wait_stays_where_the_write_was_done_though_something_is_read_elsewhere() -> None:
    """On another node it counts for no write at all, and all replicas have that."""
    commands = [("RPUSH", b"a", b"f"), ("HGET", b"b", b"f"), ("WAIT", 1, 1000)]
    ask = ErrorReply("ASK 3999 10.0.0.2:6380")
    assert redirected([1, ask, 1], commands, HERE) == (("10.0.0.2", 6380), (1,))
    assert redirected([ask, ask, 1], commands, HERE) == (("10.0.0.2", 6380), (0, 1, 2))


def test_whoever_did_not_lead_to_the_primary_is_asked_last() -> None:
    endpoints = (("a", 1), ("b", 1), ("c", 1))
    way = Way()
    assert way.nodes(endpoints)[0] == ("a", 1)
    way.turn()
    assert way.nodes(endpoints) == (("b", 1), ("c", 1), ("a", 1))
    way.led(("d", 1))
    assert way.nodes(endpoints)[:2] == (("d", 1), ("b", 1))
    way.turn()
    assert ("d", 1) not in way.nodes(endpoints)
