"""One loop: what is interrupted ends as what is not, and nothing that only computes changes a number."""

import resource
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from robustbench_twicing.catalog.locate import definitions
from robustbench_twicing.errors import UserError
from robustbench_twicing.train import loop
from robustbench_twicing.train.folder import wanted
from robustbench_twicing.train.job import ONE_CPU, Share, share_of
from robustbench_twicing.train.loop import train
from tests.train.small import MODEL, small_job, write_pictures

EVERY_UPDATE = ONE_CPU._replace(checkpoint_seconds=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def uninterrupted(pictures):
    return train(small_job(pictures))


class Killed(BaseException):
    """As nothing in the package catches it."""


def killed_after(updates):
    def progress(done):
        if done.update == updates:
            raise Killed

    return progress


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_killed_at_any_update_and_begun_again_it_ends_with_the_same_weights(pictures, uninterrupted, tmp_path):
    job = small_job(pictures)
    assert job.updates == 6
    for update in (2, 3, 5):  # in the first epoch, between both, in the second
        with pytest.raises(Killed):
            train(job, EVERY_UPDATE, tmp_path, killed_after(update))
        (tmp_path / ".checkpoint-000000009.pt.part").write_bytes(b"half of one")
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert names == ["checkpoint-000000003.pt", "checkpoint-000000004.pt"]
    (tmp_path / names[1]).write_bytes((tmp_path / names[1]).read_bytes()[:5000])  # a power cut
    outcome = train(job, EVERY_UPDATE, tmp_path)
    assert same(outcome.weights, uninterrupted.weights)
    assert same(outcome.averaged, uninterrupted.averaged)
    assert outcome.train_loss == uninterrupted.train_loss
    assert "is damaged; went on from" in outcome.remarks[0]


def test_ctrl_c_stops_between_two_updates_with_a_checkpoint(pictures, uninterrupted, tmp_path):
    job, before = small_job(pictures), signal.getsignal(signal.SIGINT)

    def press(done):
        if done.update == 4:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(job, ONE_CPU, tmp_path, press)
    assert signal.getsignal(signal.SIGINT) is before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000000004.pt"]
    assert same(train(job, ONE_CPU, tmp_path).weights, uninterrupted.weights)


def test_a_checkpoint_of_another_training_is_refused_by_field(pictures, tmp_path):
    with pytest.raises(Killed):
        train(small_job(pictures), EVERY_UPDATE, tmp_path, killed_after(2))
    with pytest.raises(UserError, match=r"another training:\n  seed: 0 there, 1 here\n  optimizer.weight_decay: 0.05"):
        train(small_job(pictures, seed=1, optimizer={"weight_decay": 0.1}), EVERY_UPDATE, tmp_path)


def test_workers_change_no_number(pictures):
    job = small_job(pictures)
    network = loop.network_of(job)
    one, other = (list(job.data.feed(job, network, Share(micro_batches=2, workers=workers), 3)) for workers in (0, 2))
    assert len(one) == len(other) == 6
    assert all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )
    assert torch.equal(next(iter(job.data.feed(job, network, Share(micro_batches=2), 5))).images, one[4].images)


def test_processes_share_what_one_accumulates(pictures):
    job = small_job(pictures)
    alone = list(wanted(job, 2, Share(micro_batches=4), 1))
    ranks = [list(wanted(job, 2, Share(micro_batches=4, rank=rank, world=2), 1)) for rank in (0, 1)]
    assert [micro for pair in zip(*ranks, strict=True) for micro in pair] == alone
    assert len(alone) == 5 * 4
    first_update = [image for micro in alone[:4] for image in micro]
    assert len(set(first_update)) == 8
    assert len({image.position for image in first_update}) == 4  # each twice


@pytest.mark.dear
def test_two_processes_train_what_one_trains_with_twice_as_many_micro_batches(pictures, tmp_path):
    recipe, out = tmp_path / "mine.toml", tmp_path / "two.safetensors"
    text = (definitions("recipes") / "tiny.toml").read_text("utf-8")
    recipe.write_text(text.replace("batch = 16", "batch = 8").replace("repeats = 1", "repeats = 2"))
    command = f"-m torch.distributed.run --standalone --nproc-per-node 2 -m robustbench_twicing train --model {MODEL}"
    options = ["--data-dir", pictures, "--data", "pictures", "--recipe", recipe, "--out", out, "--workers", "0"]
    done = subprocess.run(
        [sys.executable, *command.split(), *map(str, options), "--device", "cpu"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"clean accuracy") == 1
    one, two = train(small_job(pictures), ONE_CPU._replace(micro_batch=4)).weights, load_file(out)
    # Sums of gradients in another order; Adam's step of a small gradient hangs on its last bits. A step is 2.5e-4.
    assert max((one[name] - two[name]).abs().max() for name in one) < 2e-5
    assert list(tmp_path.glob("*.training")) == []


def test_accumulation_changes_the_last_bits_only(pictures):
    off = {"mixing": {"probability": 0.0}, "regularisation": {"drop_path": 0.0}}
    off |= {"epochs": 1, "schedule": {"warmup_epochs": 0}}
    job = small_job(pictures, **off)
    whole, parts = (train(job, ONE_CPU._replace(micro_batch=size)).weights for size in (8, 2))
    # Adam divides by a gradient's size, so the last bits of small gradients count; a step is 2.5e-4.
    assert max((whole[name] - parts[name]).abs().max() for name in whole) < 2e-5
    assert not same(whole, train(small_job(pictures, 1, **off)).weights)


def test_a_loss_that_is_no_number_stops_with_the_last_good_checkpoint(pictures, tmp_path):
    job = small_job(pictures, optimizer={"learning_rate": 1e30}, schedule={"warmup_epochs": 0})
    with pytest.raises(UserError, match=r"is no number after update \d of 6 \(epoch 1\)"):
        train(job, EVERY_UPDATE, tmp_path)
    for path in tmp_path.glob("*.pt"):
        assert all(tensor.isfinite().all() for tensor in torch.load(path, weights_only=True)["model"].values())


def test_a_full_disk_leaves_the_previous_checkpoint_whole(pictures, uninterrupted, tmp_path):
    job, limits = small_job(pictures), resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done):
        if done.update == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))

    try:
        with pytest.raises(UserError, match="could not be written: File too large") as raised:
            train(job, EVERY_UPDATE, tmp_path, fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{tmp_path / 'checkpoint-000000002.pt'} is whole" in raised.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-000000001.pt", "checkpoint-000000002.pt"]
    assert same(train(job, ONE_CPU, tmp_path).weights, uninterrupted.weights)


def test_out_of_memory_halves_what_goes_through_at_once_and_keeps_the_batch(pictures, monkeypatch):
    job = small_job(pictures, epochs=1, schedule={"warmup_epochs": 0})
    real, sizes = loop.loss_of, []

    def small_device(recipe, logits, targets):
        sizes.append(len(logits))
        if len(logits) > 4:
            raise torch.OutOfMemoryError("a stand-in for a small card")
        return real(recipe, logits, targets)

    monkeypatch.setattr(loop, "loss_of", small_device)
    outcome = train(job)
    assert sizes == [8] + [4] * 6
    assert outcome.remarks == ("out of memory: micro-batches went through in 2 parts from then on",)


def test_a_batch_that_does_not_divide_is_refused(pictures):
    job = small_job(pictures)
    with pytest.raises(UserError, match="3 processes cannot share the batch of 8"):
        share_of(job, ONE_CPU, 0, 3)
    with pytest.raises(UserError, match="mixes images in pairs"):
        share_of(job, ONE_CPU._replace(micro_batch=1))
    with pytest.raises(UserError, match="batch of 32 is more than the 24 training images"):
        train(small_job(pictures, batch=32))
