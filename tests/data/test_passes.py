"""Decoding ahead: the same batches as without threads, in order, bounded, and cleanly over."""

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch

from robustbench_twicing.catalog.suites import class_list, suite
from robustbench_twicing.data.dataset import Batch
from robustbench_twicing.data.digits import digits
from robustbench_twicing.data.imagenet import ImageFiles, index_images
from robustbench_twicing.data.layout import find_suite
from robustbench_twicing.data.passes import read_ahead
from robustbench_twicing.spec.models import Recipe
from tests.imagenet_trees import build_tree

DEIT = Recipe(resize=72, crop=64)
PAPER = Recipe(resize=73, crop=64)


class Counting:
    """A data set of numbers that notes which positions have been read. Even positions cannot be read if `odd_only`."""

    name, classes, fingerprint = "counting", 2, "0" * 12

    def __init__(self, length: int, odd_only: bool = False, fail_at: int | None = None) -> None:
        self.sample_ids = [str(number) for number in range(length)]
        self.labels = [0] * length
        self.odd_only = odd_only
        self.fail_at = fail_at
        self.seen: list[int] = []

    def of_ids(self, sample_ids: Collection[str]) -> "Counting":
        raise NotImplementedError

    def read(self, positions: Sequence[int], recipes: Sequence[Recipe]) -> Batch:
        if self.fail_at in positions:
            raise RuntimeError("a bug")
        self.seen += positions
        readable = tuple(position for position in positions if position % 2 or not self.odd_only)
        images = torch.tensor(readable, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2)
        errors = {position: f"file {position}" for position in positions if position not in readable}
        return Batch(tuple(positions), dict.fromkeys(recipes, images), readable, errors)


def _decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def _shards(length: int, size: int) -> list[range]:
    return [range(start, min(start + size, length)) for start in range(0, length, size)]


@pytest.fixture
def photographs(tmp_path: Path) -> ImageFiles:
    build_tree(tmp_path, "imagenet", class_list("imagenet")[:5], per_class=4)
    (tmp_path / "n01440764" / "ILSVRC2012_val_00000002.JPEG").write_bytes(b"broken")
    return index_images(find_suite(suite("imagenet"), tmp_path))


@pytest.mark.parametrize("workers", [0, 1, 3, 16])
@pytest.mark.parametrize("size", [1, 7, 20, 64])
def test_batches_are_those_of_plain_reading(photographs: ImageFiles, workers: int, size: int) -> None:
    shards = _shards(len(photographs.labels), size)
    batches = list(read_ahead(photographs, shards, [DEIT, PAPER], workers))
    assert [batch.positions for batch in batches] == [tuple(shard) for shard in shards]
    for shard, batch in zip(shards, batches, strict=True):
        plain = photographs.read(shard, [DEIT, PAPER])
        assert batch.readable == plain.readable
        assert batch.errors == plain.errors
        for recipe in (DEIT, PAPER):
            assert torch.equal(batch.images[recipe], plain.images[recipe])
    assert sum(len(batch.errors) for batch in batches) == 1


def test_a_shard_without_one_readable_image_is_a_batch_of_errors() -> None:
    (batch,) = read_ahead(Counting(6, odd_only=True), [[0, 2, 4]], [Recipe()], 2)
    assert batch.readable == ()
    assert set(batch.errors) == {0, 2, 4}
    assert len(batch.images[Recipe()]) == 0


def test_rows_follow_the_readable_positions_across_threads() -> None:
    (batch,) = read_ahead(Counting(50, odd_only=True), [range(50)], [Recipe()], 4)
    assert batch.images[Recipe()][:, 0, 0, 0].tolist() == list(batch.readable) == list(range(1, 50, 2))


def test_any_data_set_can_be_read_ahead() -> None:
    numbers = digits()
    images = torch.cat([batch.images[Recipe()] for batch in read_ahead(numbers, _shards(40, 16), [Recipe()], 2)])
    assert torch.equal(images, numbers.read(range(40), [Recipe()]).images[Recipe()])


class _AskingForThreads(Counting):
    """Notes with how many threads torch would compute where it is read."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.threads: set[int] = set()

    def read(self, positions: Sequence[int], recipes: Collection[Recipe]) -> Batch:
        self.threads.add(torch.get_num_threads())
        return super().read(positions, recipes)


def test_decoding_threads_have_no_helpers_and_others_keep_theirs() -> None:
    """Idle helpers of OpenMP slowed the work itself: they count as waiting threads, and then no thread waits awake."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        dataset = _AskingForThreads(40)
        list(read_ahead(dataset, _shards(40, 10), [Recipe()], workers=2))
        assert dataset.threads == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_only_a_bounded_number_of_shards_is_decoded_ahead() -> None:
    dataset = Counting(1000)
    with closing(read_ahead(dataset, _shards(1000, 10), [Recipe()], workers=4, ahead=2)) as batches:
        for number in range(1, 20):
            next(batches)
            time.sleep(0.002)  # leaves the threads time to run too far, if anything let them
            assert len(dataset.seen) <= 10 * (number + 2)


def test_shards_are_drawn_only_as_they_are_needed() -> None:
    drawn = 0

    def endless() -> Iterator[list[int]]:
        nonlocal drawn
        while True:
            drawn += 1
            yield [0, 1]

    with closing(read_ahead(Counting(2), endless(), [Recipe()], workers=2, ahead=3)) as batches:
        next(batches)
        assert drawn == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_no_shards_give_no_batches(workers: int) -> None:
    assert list(read_ahead(Counting(2), [], [Recipe()], workers)) == []


def test_closing_ends_the_threads() -> None:
    batches = read_ahead(Counting(1000), _shards(1000, 10), [Recipe()], workers=3)
    next(batches)
    assert _decoding_threads()
    batches.close()
    assert not _decoding_threads()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ValueError])
def test_an_exception_in_the_loop_ends_the_threads(stop: type[BaseException]) -> None:
    def evaluate() -> None:
        with closing(read_ahead(Counting(1000), _shards(1000, 10), [Recipe()], 3)) as batches:
            for _ in batches:
                raise stop

    with pytest.raises(stop):
        evaluate()
    assert not _decoding_threads()


def test_a_bug_in_reading_reaches_the_caller_and_ends_the_threads() -> None:
    batches = read_ahead(Counting(100, fail_at=37), _shards(100, 10), [Recipe()], workers=2)
    with pytest.raises(RuntimeError, match="a bug"):
        list(batches)
    assert not _decoding_threads()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_hold_the_same_pixels(photographs: ImageFiles) -> None:
    (batch,) = read_ahead(photographs, [range(8)], [DEIT], 2, pin_memory=True)
    assert batch.images[DEIT].is_pinned()
    assert torch.equal(batch.images[DEIT], photographs.read(range(8), [DEIT]).images[DEIT])
