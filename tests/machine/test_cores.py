"""Pieces of work on every core."""

import threading

import pytest
import torch

from robustbench_twicing.machine.cores import on_every_core, threads_on

CPU = torch.device("cpu")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_pieces_meet_on_as_many_cores_as_torch_has_threads():
    together = threading.Barrier(3, timeout=60)

    def work(piece: int) -> tuple[int, int]:
        together.wait()  # passes only when three pieces are being worked on
        return piece, torch.get_num_threads()

    # Within a piece there is one core, so that pieces do not spread themselves once more.
    assert list(on_every_core(work, range(6), CPU)) == [(piece, 1) for piece in range(6)]
    assert torch.get_num_threads() == 3
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert found == [3]


@pytest.mark.usefixtures("three_threads")
def test_what_a_piece_raises_is_raised_to_the_caller():
    def work(piece: int) -> int:
        if piece == 1:
            raise ValueError("piece 1")
        return piece

    with pytest.raises(ValueError, match="piece 1"):
        list(on_every_core(work, range(4), CPU))
    assert list(on_every_core(abs, [-1, 2], CPU)) == [1, 2]


def test_other_devices_take_one_piece_after_the_other():
    caller = threading.get_ident()
    assert set(on_every_core(lambda _: threading.get_ident(), range(4), torch.device("cuda"))) == {caller}


@pytest.mark.parametrize(
    ("said", "threads"), [(None, 4), ("", 4), ("2", 2), ("8", 4), ("2,1", 2), ("0", 4), ("all", 4)]
)
def test_who_asks_for_fewer_threads_than_cores_gets_them(monkeypatch, said, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_on(4) == threads
