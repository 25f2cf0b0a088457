"""The Merkle tree of RFC 6962, section 2.1: roots, inclusion and consistency, in constant memory.

A tree is known by its `Frontier`: the roots of the full subtrees that make it up, one for each bit
of its size, the largest first. It grows by it, and its root follows from it. A proof is a list of
roots of ranges of leaves; which ranges is said here, their roots are made in one pass over the
leaves (`roots_of`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "Frontier",
    "consistency_ranges",
    "inclusion_ranges",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "leaf_hashes",
    "roots_of",
]

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()

_LEAF = b"\x00"
_NODE = b"\x01"

Range = tuple[int, int]
"""Leaves from the first to before the second."""


def leaf_hash(leaf: bytes) -> bytes:
    """What a leaf is in the tree."""
    return sha256(_LEAF + leaf).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """`leaf_hash` of each."""
    return [sha256(_LEAF + leaf).digest() for leaf in leaves]


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(_NODE + left + right).digest()


class Frontier:
    """A tree that grows at its end. Raises ``ValueError`` for peaks that are not of the size."""

    __slots__ = ("_peaks", "_size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {max(size, 0).bit_count()} peaks")
        if any(len(peak) != HASH_BYTES for peak in peaks):
            raise ValueError(f"a peak has {HASH_BYTES} bytes")
        self._size = size
        self._peaks = list(peaks)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Frontier)
            and self._size == other._size
            and self._peaks == other._peaks
        )

    __hash__ = None  # type: ignore[assignment]  # it grows

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the full subtrees, the largest first."""
        return tuple(self._peaks)

    def copy(self) -> Frontier:
        """One that grows on its own."""
        return Frontier(self._size, self._peaks)

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Add leaves by their hashes. Level by level: two or three times as fast as one by one."""
        nodes = list(hashes)
        peaks, bits, made = self._peaks, self._size, []
        self._size += len(nodes)
        while nodes:
            if bits & 1:
                nodes.insert(0, peaks.pop())
            if len(nodes) & 1:
                made.append(nodes.pop())
            pairs = zip(nodes[::2], nodes[1::2], strict=True)
            nodes = [sha256(_NODE + left + right).digest() for left, right in pairs]
            bits >>= 1
        peaks.extend(reversed(made))

    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _node(peak, root)
        return root

    def ranges(self) -> Iterator[Range]:
        """Which leaves each peak stands for."""
        start = 0
        for level in reversed(range(self._size.bit_length())):
            if self._size >> level & 1:
                yield start, start + (1 << level)
                start += 1 << level


def _split(size: int) -> int:
    """The largest power of two below a size of 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Whose roots are the proof that leaf ``index`` is in a tree of ``size``, from the leaf up."""
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    found: list[Range] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


def consistency_ranges(old: int, new: int) -> list[Range]:
    """Whose roots are the proof that a tree of ``old`` leaves became that of ``new``. None are
    needed where there is nothing to prove: from nothing, and between trees of the same size."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves was never one of {old}")
    found: list[Range] = []
    start, end, whole = 0, new, True
    if old in (0, new):
        return found
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start, whole = middle, False
    if not whole:
        found.append((start, end))
    return found[::-1]


def roots_of(ranges: Sequence[Range], known: Frontier, hashes: Iterable[bytes]) -> list[bytes]:
    """The root of each range, in one pass: ``known`` is the tree before the first of the hashes.

    The ranges do not overlap (those of a proof do not). Raises ``ValueError`` where a range needs
    leaves that are neither among the hashes nor whole in a peak of ``known``.
    """
    parts = {one: Frontier() for one in ranges}
    first = known.size
    for (start, end), peak in zip(known.ranges(), known.peaks, strict=True):
        for one, part in parts.items():
            if one[0] <= start and end <= one[1] and part.size == start - one[0]:
                parts[one] = Frontier(end - one[0], (*part.peaks, peak))
    position, source = first, iter(hashes)
    for one in sorted(ranges):
        start, end = max(one[0], first), one[1]
        while position < end:
            missing = end - position if position >= start else start - position
            block = [value for _, value in zip(range(min(missing, 4096)), source, strict=False)]
            if not block:
                break
            if position >= start:
                parts[one].extend(block)
            position += len(block)
    if any(part.size != end - start for (start, end), part in parts.items()):
        raise ValueError("the leaves that the proof needs are not there")
    return [parts[one].root() for one in ranges]


def is_included(leaf: bytes, index: int, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``leaf`` (its hash) is number ``index`` of the tree of that size and root: RFC 9162,
    section 2.1.3.2."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = _node(sibling, found)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            found = _node(found, sibling)
        place >>= 1
        last >>= 1
    return last == 0 and found == root


def is_consistent(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the tree of ``new`` leaves began as that of ``old``: RFC 9162, section 2.1.4.2."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    before = after = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = _node(sibling, before), _node(sibling, after)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            after = _node(after, sibling)
        place >>= 1
        last >>= 1
    return last == 0 and before == old_root and after == new_root
