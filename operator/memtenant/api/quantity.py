"""Quantities as Kubernetes writes them (``512Mi``, ``1.5G``, ``1000m``), compared by meaning.

The grammar is that of k8s.io/apimachinery ``resource.ParseQuantity``: a signed decimal number and
one suffix, binary (``Ki`` … ``Ei``), decimal (``n u m`` none ``k M G T P E``) or an exponent
(``e3``, ``E3``). Values finer than a nano are rounded away from zero; magnitudes above 2^63-1 are
capped there if their suffix is binary, and only then, as the API server does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import total_ordering

from memtenant.errors import InvalidResource

__all__ = ["Quantity", "quantity_of_bytes"]

_NUMBER = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(.*)", re.DOTALL)
_EXPONENT = re.compile(r"[eE]([+-]?[0-9]+)")
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_LARGEST = Fraction(2**63 - 1)
_MAX_EXPONENT = 1000
_NANO = 10**9


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An amount, and the text that it was written as.

    ``Quantity.parse("1Gi") == Quantity.parse("1024Mi")``: order, equality and hash follow the
    amount; ``str`` gives the text back unchanged, so that writing it makes no difference.
    """

    text: str
    amount: Fraction = field(repr=False)

    @classmethod
    def parse(cls, text: str | float) -> Quantity:
        """Read ``512Mi`` or a plain number; `InvalidResource` shows the accepted forms."""
        written = str(text)
        found = _NUMBER.fullmatch(written)
        scale = _scale(found.group(3)) if found else None
        if found is None or scale is None or isinstance(text, bool):
            raise InvalidResource(
                f"{text!r} is not a quantity: write a number of bytes with or without a suffix, "
                "as 536870912, 512Mi, 2Gi or 1.5G"
            )
        number = Fraction(found.group(2).rstrip(".")) * scale
        nanos = -(-number.numerator * _NANO // number.denominator)
        amount = Fraction(nanos, _NANO)
        if found.group(3) in _BINARY:
            amount = min(amount, _LARGEST)
        return cls(written, -amount if found.group(1) == "-" else amount)

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.amount == other.amount

    def __lt__(self, other: Quantity) -> bool:
        return self.amount < other.amount

    def __hash__(self) -> int:
        return hash(self.amount)

    @property
    def bytes(self) -> int:
        """The whole number of bytes, rounded up."""
        return -(-self.amount.numerator // self.amount.denominator)


def _scale(suffix: str) -> Fraction | None:
    if suffix in _BINARY:
        return Fraction(1 << _BINARY[suffix])
    if suffix in _DECIMAL:
        return Fraction(10) ** _DECIMAL[suffix]
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None or len(exponent.group(1)) > len(str(-_MAX_EXPONENT)):
        return None
    return Fraction(10) ** int(exponent.group(1))


def quantity_of_bytes(count: int) -> Quantity:
    """``count`` bytes in the largest binary unit that shows them exactly, as ``1536Mi``."""
    for suffix, power in reversed(_BINARY.items()):
        if count and count % (1 << power) == 0:
            return Quantity(f"{count >> power}{suffix}", Fraction(count))
    return Quantity(str(count), Fraction(count))
