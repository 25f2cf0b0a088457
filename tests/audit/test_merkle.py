"""The tree against RFC 6962 as it is written there, against published vectors, and by property."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memtenant.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_ranges,
    inclusion_ranges,
    is_consistent,
    is_included,
    leaf_hash,
    leaf_hashes,
    roots_of,
)

# Of certificate-transparency-go (merkletree tests): eight leaves and the roots of their trees.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# Inclusion: leaf, size, proof. Consistency: sizes, proof. Of the same tests.
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def rfc_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + rfc_root(leaves[:split]) + rfc_root(leaves[split:])).digest()


def tree(leaves: list[bytes]) -> Frontier:
    grown = Frontier()
    grown.extend(leaf_hashes(leaves))
    return grown


def proof_of(ranges: list[tuple[int, int]], leaves: list[bytes]) -> list[bytes]:
    return roots_of(ranges, Frontier(), leaf_hashes(leaves))


def test_roots_are_the_published_ones() -> None:
    assert tree([]).root() == EMPTY_ROOT
    assert [tree(LEAVES[: n + 1]).root().hex() for n in range(8)] == ROOTS


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSION)
def test_inclusion_proofs_are_the_published_ones(index: int, size: int, proof: list[str]) -> None:
    made = proof_of(inclusion_ranges(index, size), LEAVES[:size])
    assert [one.hex() for one in made] == proof
    root = bytes.fromhex(ROOTS[size - 1])
    assert is_included(leaf_hash(LEAVES[index]), index, size, root, made)


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCY)
def test_consistency_proofs_are_the_published_ones(old: int, new: int, proof: list[str]) -> None:
    made = proof_of(consistency_ranges(old, new), LEAVES[:new])
    assert [one.hex() for one in made] == proof
    roots = [bytes.fromhex(ROOTS[size - 1]) for size in (old, new)]
    assert is_consistent(old, new, *roots, made)


@given(st.lists(st.lists(st.binary(max_size=3), max_size=20), max_size=8))
def test_a_tree_that_grows_in_steps_is_that_of_the_rfc(steps: list[list[bytes]]) -> None:
    grown, leaves = Frontier(), []
    for step in steps:
        leaves += step
        grown.extend(leaf_hashes(step))
        assert (grown.size, grown.root()) == (len(leaves), rfc_root(leaves))
        assert Frontier(grown.size, grown.peaks) == grown


@given(st.integers(1, 70), st.data())
def test_every_leaf_is_proven_and_nothing_else(size: int, data: st.DataObject) -> None:
    leaves = [bytes((n,)) for n in range(size)]
    index = data.draw(st.integers(0, size - 1))
    pruned = data.draw(st.integers(0, index))
    hashes, root = leaf_hashes(leaves), tree(leaves).root()
    # Also where the leaves before are gone and only their peaks are kept.
    known = tree(leaves[:pruned])
    proof = roots_of(inclusion_ranges(index, size), known, hashes[pruned:])
    assert is_included(hashes[index], index, size, root, proof)
    other = data.draw(
        st.integers(0, size - 1).filter(lambda one: one != index) if size > 1 else st.just(1)
    )
    assert not is_included(hashes[index], other, size, root, proof)
    assert not is_included(leaf_hash(b"other"), index, size, root, proof)
    assert not is_included(hashes[index], index, size, root, [*proof, bytes(32)])
    if proof:
        assert not is_included(hashes[index], index, size, root, proof[:-1])


@given(st.integers(0, 70), st.integers(0, 70), st.data())
def test_every_tree_is_proven_to_go_on_and_no_other(a: int, b: int, data: st.DataObject) -> None:
    old, new = sorted((a, b))
    leaves = [bytes((n,)) for n in range(new)]
    before, after = tree(leaves[:old]).root(), tree(leaves).root()
    proof = proof_of(consistency_ranges(old, new), leaves)
    assert is_consistent(old, new, before, after, proof)
    assert not is_consistent(old, new, before, after, [*proof, bytes(32)])
    if old:
        other = tree([*leaves[: old - 1], b"other"]).root()
        assert not is_consistent(old, new, other, after, proof)
        changed = tree([*leaves[: old - 1], b"other", *leaves[old:]]).root()
        assert not is_consistent(old, new, before, changed, proof)
    if proof:
        cut = data.draw(st.integers(0, len(proof) - 1))
        assert not is_consistent(old, new, before, after, proof[:cut])


def test_what_cannot_be_a_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="peaks"):
        Frontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="bytes"):
        Frontier(1, [b"short"])
    with pytest.raises(ValueError, match="no leaf 2"):
        inclusion_ranges(2, 2)
    with pytest.raises(ValueError, match="never"):
        consistency_ranges(3, 2)
    with pytest.raises(ValueError, match="not there"):
        roots_of(inclusion_ranges(0, 4), Frontier(), leaf_hashes(LEAVES[:2]))
