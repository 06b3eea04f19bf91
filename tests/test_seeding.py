"""Draws: the right generator, bit for bit, and nothing in common between samples, threats, indices and seeds."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustbench_twicing import seeding
from robustbench_twicing.seeding import Draws

seeds = st.integers(min_value=0, max_value=2**63)
names = st.text(max_size=12)
indices = st.integers(min_value=0, max_value=2**40)


def philox(seed, sample_id, threat, index, count):
    """The definition, written out with numpy's own generator."""
    digest = hashlib.blake2b(f"{seed}\x00{sample_id}\x00{threat}".encode(), digest_size=16).digest()
    key = np.frombuffer(digest, dtype="<u8")
    return np.random.Philox(key=key, counter=[0, index, 0, 0]).random_raw(count)


@given(seed=seeds, sample_id=names, threat=names, index=indices, count=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_words_are_numpys_philox_bit_for_bit(seed, sample_id, threat, index, count):
    words = Draws(seed, (sample_id,), threat).words(index, count)
    assert words.shape == (1, count)
    np.testing.assert_array_equal(words[0].numpy().view(np.uint64), philox(seed, sample_id, threat, index, count))


@given(seed=seeds, index=indices, count=st.integers(1, 70), samples=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_tensor_version_for_other_devices_gives_the_same_bits(seed, index, count, samples):
    draws = Draws(seed, tuple(f"s{row}" for row in range(samples)), "pgd")
    keys = [seeding._key(seed, sample_id, "pgd") for sample_id in draws.sample_ids]
    elsewhere = seeding._words_torch(keys, index, count, torch.device("cpu"))
    assert torch.equal(elsewhere, draws.words(index, count))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_the_same():
    draws = Draws(3, ("a", "b"), "pgd")
    assert torch.equal(draws.uniform(1, (3, 8, 8), "cuda").cpu(), draws.uniform(1, (3, 8, 8)))
    assert torch.equal(draws.signs(1, (3, 8, 8), "cuda").cpu(), draws.signs(1, (3, 8, 8)))
    # log and cos may differ in the last place: 2^-22 at values below 8.
    torch.testing.assert_close(draws.normal(1, (3, 8, 8), "cuda").cpu(), draws.normal(1, (3, 8, 8)), rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["uniform", "signs", "normal"])
def test_a_sample_draws_the_same_in_any_company(kind):
    everyone = tuple(f"sample-{row}" for row in range(6))
    together = getattr(Draws(0, everyone, "t"), kind)(2, (3, 5))
    for row in range(6):
        alone = getattr(Draws(0, (everyone[row],), "t"), kind)(2, (3, 5))
        assert torch.equal(alone[0], together[row])
    taken = getattr(Draws(0, everyone, "t").take([5, 1]), kind)(2, (3, 5))
    assert torch.equal(taken, together[[5, 1]])


@pytest.mark.parametrize("kind", ["uniform", "signs"])
def test_a_longer_draw_begins_like_a_shorter_one(kind):
    draws = Draws(0, ("a",), "t")
    longer = getattr(draws, kind)(0, (1000,))
    for count in (1, 63, 64, 65, 999):
        assert torch.equal(getattr(draws, kind)(0, (count,)), longer[:, :count])


@given(start=st.integers(0, 200), count=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_a_part_of_a_draw_of_signs_is_that_part(start, count):
    draws = Draws(0, ("a", "b"), "t")
    whole = draws.signs(3, (400,))
    assert torch.equal(seeding.signs_of(draws.words(3, 7), start, start + count), whole[:, start : start + count])


def test_signs_are_the_bits_least_significant_first():
    draws = Draws(0, ("a",), "t")
    bits = [word >> place & 1 for word in draws.words(1, 3)[0].tolist() for place in range(64)]
    assert draws.signs(1, (192,))[0].tolist() == [1.0 if bit else -1.0 for bit in bits]


def test_draws_of_different_samples_threats_indices_and_seeds_are_independent():
    """Rows of a million random bits agree in half of them, whatever they differ in."""
    variants = [
        Draws(seed, (sample_id,), threat).words(index, 2000)
        for seed, sample_id, threat, index in itertools.product((0, 1), ("a", "b"), ("pgd", "fgsm"), (0, 1))
    ]
    bits = np.unpackbits(np.stack([words[0].numpy() for words in variants]).view(np.uint8), axis=1)
    for one, other in itertools.combinations(bits, 2):
        # 128,000 fair coins: mean 1/2, standard deviation 0.0014; 120 pairs, so six of them.
        assert abs((one == other).mean() - 0.5) < 6 * 0.5 / len(one) ** 0.5


def test_a_name_cannot_be_taken_for_another():
    """Parts are separated: ("1", "2x") is not ("12", "x")."""
    words = [
        Draws(seed, (sample_id,), threat).words(0, 1).item()
        for seed, sample_id, threat in [(1, "2", "x"), (12, "", "x"), (1, "", "2x"), (1, "2x", "")]
    ]
    assert len(set(words)) == 4


COUNT = 200_000
FIVE = 5 / COUNT**0.5
"""Five standard deviations of a mean of COUNT independent numbers of variance one: wrong once in two million times."""


def sample(kind):
    return getattr(Draws(0, ("sample",), "moments"), kind)(0, (COUNT,))[0].double()


def test_uniform_numbers_are_uniform():
    numbers = sample("uniform")
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert abs(numbers.mean() - 1 / 2) < FIVE * (1 / 12) ** 0.5
    assert abs(numbers.square().mean() - 1 / 3) < FIVE * (4 / 45) ** 0.5
    # Kolmogorov-Smirnov: sup |F - F_n| exceeds 2.5 / √n with probability 2 exp(-2 x 2.5²) = 7e-6.
    ordered, grid = numbers.sort().values, torch.arange(1, COUNT + 1).double() / COUNT
    assert (ordered - grid).abs().max() < 2.5 / COUNT**0.5


def test_normal_numbers_are_normal():
    numbers = sample("normal")
    assert abs(numbers.mean()) < FIVE
    assert abs(numbers.square().mean() - 1) < FIVE * 2**0.5
    assert abs(numbers.pow(3).mean()) < FIVE * 15**0.5
    assert abs(numbers.pow(4).mean() - 3) < FIVE * 96**0.5
    assert 4.0 < numbers.abs().max() <= 5.77
    pairs = numbers.reshape(2, -1)  # the two halves share radius and angle
    assert abs((pairs[0] * pairs[1]).mean()) < FIVE * 2**0.5
    assert abs((pairs[0].square() * pairs[1].square()).mean() - 1) < FIVE * 2**0.5 * 8**0.5


def test_signs_are_fair_coins():
    numbers = sample("signs")
    assert set(numbers.unique().tolist()) == {-1.0, 1.0}
    assert abs(numbers.mean()) < FIVE
    assert abs((numbers[1:] * numbers[:-1]).mean()) < FIVE
    for stride in (8, 64):  # bytes and words
        for offset in range(0, stride, stride // 8):
            assert abs(numbers[offset::stride].mean()) < 5 / (COUNT / stride) ** 0.5


def test_a_batch_seed_depends_on_everything():
    first = Draws(0, ("a", "b"), "t").batch_seed()
    others = [Draws(1, ("a", "b"), "t"), Draws(0, ("b", "a"), "t"), Draws(0, ("a",), "t"), Draws(0, ("a", "b"), "u")]
    assert first == Draws(0, ("a", "b"), "t").batch_seed()
    assert len({first, *(other.batch_seed() for other in others)}) == 5
    assert 0 <= first < 2**63


def test_a_negative_index_is_refused():
    with pytest.raises(ValueError, match="not negative"):
        Draws(0, ("a",), "t").words(-1, 1)
