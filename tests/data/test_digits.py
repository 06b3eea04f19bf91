"""The embedded digits are real, fixed, balanced, and exact multiples of 1/255."""

import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from robustbench_twicing.data.digits import digits
from robustbench_twicing.data.in_memory import MemoryDataset
from robustbench_twicing.data.order import balanced_order
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.models import Recipe

NONE = Recipe()


@pytest.fixture(scope="module")
def source():
    return load_digits()


def test_splits_are_disjoint_complete_and_stratified(source):
    test, train = digits("test"), digits("train")
    assert (len(test.sample_ids), len(train.sample_ids)) == (597, 1200)
    assert {*test.sample_ids, *train.sample_ids} == {f"digits-{number:04d}" for number in range(1797)}
    assert {*Counter(test.labels).values()} == {59, 60}
    for data in (test, train):
        assert (data.name, data.classes) == ("digits", 10)
        assert all(
            source.target[int(name[-4:])] == label for name, label in zip(data.sample_ids, data.labels, strict=True)
        )


def test_scikit_learn_is_not_imported_for_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # importing it would be an error
    assert len(digits().labels) == 597


def test_the_split_never_changes():
    """Published numbers depend on it: these constants only change together with a line in the changelog."""
    test = digits()
    assert test.sample_ids[:3] == ("digits-0434", "digits-1514", "digits-1742")
    assert test.fingerprint == "c475ee5a48fe"
    assert digits("train").fingerprint == "af5e23ccb8ac"


def test_pixels_are_grey_and_exact_multiples_of_1_255(source):
    data = digits()
    images = data.read(range(597), [NONE]).images[NONE]
    assert (images.dtype, tuple(images.shape)) == (torch.float32, (597, 3, 32, 32))
    assert torch.equal(images, (images * 255).round() / 255)
    assert (images.min(), images.max()) == (0, 1)
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    # Enlarging by bilinear weights and averaging 4 x 4 pixels again is a fixed blur: checked against numpy's.
    first = source.images[int(data.sample_ids[0][-4:])] / 16
    steps = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    along_rows = np.stack([np.interp(steps, np.arange(8), row) for row in first])
    enlarged = np.stack([np.interp(steps, np.arange(8), column) for column in along_rows.T]).T
    # Rounding to 8 bits moves a value by at most half a step; 1e-6 for float32 and np.interp.
    np.testing.assert_allclose(images[0, 0].numpy(), enlarged, rtol=0, atol=0.5 / 255 + 1e-6)


def test_reading_does_not_depend_on_how_positions_are_grouped():
    data = digits()
    together = data.read([5, 2, 400], [NONE])
    assert together.positions == together.readable == (5, 2, 400)
    assert not together.errors
    alone = torch.cat([data.read([position], [NONE]).images[NONE] for position in (5, 2, 400)])
    assert torch.equal(together.images[NONE], alone)


def test_what_digits_does_not_have():
    with pytest.raises(UserError, match="no recipe 'resize248-bicubic-crop224'"):
        digits().read([0], [Recipe(resize=248, crop=224)])
    with pytest.raises(UserError, match="split 'val'"):
        digits("val")


# --- order -------------------------------------------------------------------------------------------------------

labelled = st.lists(st.integers(0, 4), max_size=60)


@given(labelled)
def test_balanced_order_is_a_permutation_with_balanced_prefixes(labels):
    order = balanced_order([f"s{number}" for number in range(len(labels))], labels)
    assert sorted(order) == list(range(len(labels)))
    sizes = Counter(labels)
    for length in range(len(labels)):
        drawn = Counter(labels[position] for position in order[:length])
        most = max(drawn.values(), default=0)
        # A class is behind by more than one only when it has no samples left.
        assert all(drawn[label] >= min(most - 1, size) for label, size in sizes.items())


@given(labelled, st.randoms(use_true_random=False))
def test_balanced_order_does_not_depend_on_the_order_samples_come_in(labels, random):
    samples = [(f"s{number}", label) for number, label in enumerate(labels)]
    shuffled = random.sample(samples, len(samples))

    def in_order(pairs):
        return [
            pairs[position] for position in balanced_order([name for name, _ in pairs], [label for _, label in pairs])
        ]

    assert in_order(shuffled) == in_order(samples)


def test_sample_ids_must_be_unique():
    with pytest.raises(ValueError, match="not unique"):
        balanced_order(["a", "a"], [0, 1])


# --- fingerprint -------------------------------------------------------------------------------------------------


def small(ids=("a", "b", "c"), labels=(0, 1, 0), bump=0) -> MemoryDataset:
    pixels = torch.arange(3 * 3 * 2 * 2, dtype=torch.uint8).reshape(3, 3, 2, 2)
    pixels[1, 2, 0, 0] += bump
    return MemoryDataset("small", 2, ids, labels, pixels)


def test_fingerprint_sees_ids_labels_and_pixels():
    fingerprints = [small(), small(ids=("a", "b", "d")), small(labels=(0, 1, 1)), small(bump=1)]
    assert len({data.fingerprint for data in fingerprints}) == 4
    assert small().fingerprint == small().fingerprint


def test_rows_stay_together_when_they_are_reordered():
    data = small()
    first = data.read([data.sample_ids.index("b")], [NONE]).images[NONE]
    assert torch.equal(first[0] * 255, torch.arange(12, 24, dtype=torch.float32).reshape(3, 2, 2))
