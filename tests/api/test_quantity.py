"""Quantities as Kubernetes reads them."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.api.quantity import Quantity, quantity_of_bytes
from memtenant.errors import InvalidResource


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        # k8s.io/apimachinery/pkg/api/resource/quantity_test.go
        ("0", Fraction(0)),
        ("0n", Fraction(0)),
        ("1n", Fraction(1, 10**9)),
        ("1u", Fraction(1, 10**6)),
        ("100m", Fraction(1, 10)),
        ("1Ki", Fraction(1024)),
        ("8Mi", Fraction(8 * 2**20)),
        ("7Ei", Fraction(7 * 2**60)),
        ("5E", Fraction(5 * 10**18)),
        ("1e9", Fraction(10**9)),
        ("1E3", Fraction(1000)),
        ("100e-1", Fraction(10)),
        ("1.5G", Fraction(1_500_000_000)),
        ("1.", Fraction(1)),
        (".5", Fraction(1, 2)),
        ("+1", Fraction(1)),
        ("-1Ki", Fraction(-1024)),
        ("1.01e1", Fraction(101, 10)),
        # Finer than a nano: away from zero.
        ("1.1n", Fraction(2, 10**9)),
        ("-1.1n", Fraction(-2, 10**9)),
        # Beyond 2^63-1: capped where the suffix is binary.
        ("9Ei", Fraction(2**63 - 1)),
        ("9223372036854775807Ki", Fraction(2**63 - 1)),
        ("10E", Fraction(10**19)),
        ("1e100", Fraction(10**100)),
        ("-9Ei", Fraction(-(2**63 - 1))),
    ],
)
def test_kubernetes_forms_are_read(text: str, amount: Fraction) -> None:
    assert Quantity.parse(text).amount == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mi",
        "1 Mi",
        "1mi",
        "1KI",
        "1K",
        "1.1.1",
        "1e",
        "1e1.5",
        "--1",
        "0x10",
        "1Mi ",
        "\u0661",
        "1\n",
    ],
)
def test_other_forms_are_refused_with_the_accepted_ones(text: str) -> None:
    with pytest.raises(InvalidResource, match="512Mi"):
        Quantity.parse(text)


def test_an_exponent_cannot_take_the_memory_of_the_operator() -> None:
    with pytest.raises(InvalidResource):
        Quantity.parse("1e999999999")


def test_equal_amounts_are_equal_whatever_their_spelling() -> None:
    assert Quantity.parse("1Gi") == Quantity.parse("1024Mi") == Quantity.parse(2**30)
    assert len({Quantity.parse("1Gi"), Quantity.parse("1024Mi")}) == 1
    assert str(Quantity.parse("1000m")) == "1000m"
    assert Quantity.parse("1000m").bytes == 1
    assert Quantity.parse("1.5").bytes == 2


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_order_is_the_order_of_amounts(one: int, other: int) -> None:
    assert (quantity_of_bytes(one) < quantity_of_bytes(other)) == (one < other)


@given(st.integers(0, 2**63 - 1))
def test_bytes_are_shown_exactly(count: int) -> None:
    shown = quantity_of_bytes(count)

    assert shown.bytes == count
    assert Quantity.parse(str(shown)) == shown
