"""Random draws that follow the sample: a counter-based generator keyed by (seed, sample id, threat).

A draw depends on nothing else, so batch size, order, worker count, sharding, resuming and device change no draw.

The generator is Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in numpy's variant,
which numpy itself runs on the CPU. On other devices the same function is computed with integer tensors; a test holds
the two together bit by bit.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn.functional import embedding

# Salmon et al. 2011, reference code Random123, philox.h: multipliers and Weyl constants of Philox4x64.
_M0, _M1 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_W0, _W1 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B
_ROUNDS = 10
_MASK32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of samples under one threat. Row i belongs to `sample_ids[i]`.

    `index` numbers the draws of an algorithm (a restart's start, a step's directions): the same index gives the same
    numbers, another index gives independent ones.
    """

    seed: int
    sample_ids: tuple[str, ...]
    threat: str

    def take(self, rows: Sequence[int]) -> "Draws":
        """The draws of some of the samples, unchanged."""
        return Draws(self.seed, tuple(self.sample_ids[row] for row in rows), self.threat)

    def batch_seed(self) -> int:
        """A seed on [0, 2^63) for foreign code that keeps a generator of its own; it depends on all samples at once."""
        ids = "\x00".join(self.sample_ids)
        digest = hashlib.blake2b(f"{self.seed}\x00{ids}\x00{self.threat}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") >> 1

    def words(self, index: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """(samples, count) int64 holding 64 independent random bits each."""
        if index < 0:
            raise ValueError("a draw index is not negative")
        keys = [_key(self.seed, sample_id, self.threat) for sample_id in self.sample_ids]
        if torch.device(device).type == "cpu":
            return _words_numpy(keys, index, count)
        return _words_torch(keys, index, count, torch.device(device))

    def uniform(self, index: int, shape: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """(samples, *shape) float32, uniform on [0, 1): 24 random bits each, so 1 itself never appears."""
        count = int(np.prod(shape))
        words = self.words(index, -(-count // 2), device)
        # The high 24 bits of each half of a word: the low half first, as it lies in memory.
        bits = (words.view(torch.int32)[:, :count] >> 8).bitwise_and_(0xFFFFFF)
        return bits.to(torch.float32).mul_(2.0**-24).reshape(len(self.sample_ids), *shape)

    def signs(self, index: int, shape: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """(samples, *shape) float32, each -1 or +1 with probability one half (Rademacher)."""
        count = int(np.prod(shape))
        words = self.words(index, -(-count // 64), device)
        return signs_of(words, 0, count).reshape(len(self.sample_ids), *shape)

    def normal(self, index: int, shape: Sequence[int], device: torch.device | str = "cpu") -> torch.Tensor:
        """(samples, *shape) float32, standard normal by Box and Muller (1958), at most 5.77 in size.

        The bits behind it are the same on every device; log and cos may differ in the last place.
        """
        count = int(np.prod(shape))
        half = -(-count // 2)
        uniforms = self.uniform(index, (2, half), device)
        radius = (1.0 - uniforms[:, 0]).log_().mul_(-2.0).sqrt_()
        angle = uniforms[:, 1] * (2.0 * torch.pi)
        both = torch.stack((angle.cos(), angle.sin()), dim=1).mul_(radius.unsqueeze(1))
        return both.reshape(len(self.sample_ids), -1)[:, :count].reshape(len(self.sample_ids), *shape)


def signs_of(words: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """(samples, stop - start) float32: the numbers from `start` to `stop` of what `Draws.signs` makes of these `words`.

    For whoever needs many signs, but not all at once: as float32 they take 32 times the memory of `words`.
    """
    # The bytes of a word in memory order, eight signs at a time from a table: 6 times faster than shifting bits.
    octets = words.view(torch.uint8)[:, start // 8 : -(-stop // 8)]
    signs = embedding(octets.int(), _signs_of_bytes(words.device))
    return signs.flatten(1)[:, start % 8 : start % 8 + stop - start]


@cache
def _signs_of_bytes(device: torch.device) -> torch.Tensor:
    """(256, 8) float32: the bits of each byte, least significant first, as -1 or +1."""
    bits = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
    return (2 * bits - 1).to(device, torch.float32)


def _key(seed: int, sample_id: str, threat: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}\x00{sample_id}\x00{threat}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _words_numpy(keys: list[tuple[int, int]], index: int, count: int) -> torch.Tensor:
    # The counter is (block, draw index, 0, 0). numpy adds one before the first block, so blocks count from one.
    counter = np.array([0, index, 0, 0], dtype=np.uint64)
    rows = np.empty((len(keys), count), dtype=np.uint64)
    # One generator set anew for each key: making one asks the system for entropy, which takes as long as 1,000 words.
    generator = np.random.Philox(key=0)
    fresh = generator.state
    for row, key in zip(rows, keys, strict=True):
        generator.state = fresh | {"state": {"counter": counter, "key": np.array(key, dtype=np.uint64)}}
        row[:] = generator.random_raw(count)
    return torch.from_numpy(rows.view(np.int64))


def _signed(value: int) -> int:
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >= 1 << 63 else value


def _multiply(a: torch.Tensor, multiplier: int) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low 64 bits of the unsigned product, from 32-bit halves (int64 arithmetic wraps)."""
    low = a * _signed(multiplier)
    a0, a1 = a & _MASK32, (a >> 32) & _MASK32
    m0, m1 = multiplier & _MASK32, multiplier >> 32
    middle = a1 * m0 + (((a0 * m0) >> 32) & _MASK32)
    other = a0 * m1 + (middle & _MASK32)
    high = a1 * m1 + ((middle >> 32) & _MASK32) + ((other >> 32) & _MASK32)
    return high, low


def _words_torch(keys: list[tuple[int, int]], index: int, count: int, device: torch.device) -> torch.Tensor:
    blocks = -(-count // 4)
    c0 = torch.arange(1, blocks + 1, dtype=torch.int64, device=device).repeat(len(keys), 1)
    c1 = torch.full_like(c0, index)
    c2, c3 = torch.zeros_like(c0), torch.zeros_like(c0)
    table = torch.tensor([[_signed(k0), _signed(k1)] for k0, k1 in keys], dtype=torch.int64).to(device)
    k0, k1 = table.reshape(len(keys), 2, 1).unbind(1)
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(c0, _M0)
        high1, low1 = _multiply(c2, _M1)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + _signed(_W0), k1 + _signed(_W1)
    return torch.stack((c0, c1, c2, c3), dim=-1).reshape(len(keys), -1)[:, :count]
