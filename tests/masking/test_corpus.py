"""The published figures hold: bounds a little below what docs/masking.md prints."""

from functools import cache

import pytest

from memtenant.tenancy.masking import Detector
from tests.masking.corpus import corpus
from tests.masking.measure import Figures, measure

LEAST = {
    Detector.CARD_VERIFICATION: (0.88, 0.98),
    Detector.CARD_TRACK: (0.99, 0.99),
    Detector.CARD: (0.99, 0.98),
    Detector.SECRET: (0.78, 0.99),
    Detector.URL_CREDENTIALS: (0.75, 0.99),
    Detector.IBAN: (0.94, 0.99),
    Detector.EMAIL: (0.94, 0.99),
    Detector.SOCIAL_SECURITY: (0.87, 0.98),
    Detector.PASSPORT: (0.78, 0.98),
    Detector.DRIVER_LICENCE: (0.80, 0.98),
    Detector.BIRTH_DATE: (0.86, 0.98),
    Detector.PHONE: (0.93, 0.97),
    Detector.IP_ADDRESS: (0.98, 0.98),
}
"""Recall and precision."""


@cache
def figures() -> Figures:
    return measure(corpus())


@pytest.mark.parametrize("kind", Detector)
def test_recall_and_precision(kind: Detector) -> None:
    recall, precision = LEAST[kind]
    assert figures().recall(kind) >= recall
    assert figures().precision(kind) >= precision


def test_the_corpus_is_the_same_each_time() -> None:
    assert list(corpus(per_kind=5, negatives=5)) == list(corpus(per_kind=5, negatives=5))
    assert list(corpus(1, 5, 5)) != list(corpus(2, 5, 5))
