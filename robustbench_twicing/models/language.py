"""What scores texts: tokens in, log-probabilities out."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from robustbench_twicing.attention.methods import settled
from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.identity import weights_hash
from robustbench_twicing.models.tiny_lm import BLOCKS, NAME, START, VOCABULARY, WINDOW, TinyLM
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec


class Tokens(NamedTuple):
    """A text in a model's tokens."""

    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """The characters of each, by their places in the text."""


class LanguageCard(NamedTuple):
    """What is known of a language model."""

    spec: ModelSpec
    attention: str
    """Which method each block computes; empty: not probed."""
    blocks: int
    parameters: int
    weights_hash: str
    vocabulary: int
    positions: int
    """Most tokens that it takes at once."""
    tokenizer: str
    """`bytes`, or the hash of its tokenizer's vocabulary and rules: those with the same one cut texts alike."""
    prefix: int | None
    """The token before a text; None: its first token is predicted by nobody."""
    note: str
    training_recipe: str = ""
    training_seed: int = -1


@runtime_checkable
class LanguageModel(Protocol):
    """A causal language model, in eval mode."""

    @property
    def card(self) -> LanguageCard: ...

    def tokens_of(self, text: str) -> Tokens:
        """The text in tokens, without special ones. Raises `UserError` if a part of it is lost."""
        ...

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) int64 to (batch, tokens, vocabulary): of what comes behind each."""
        ...


class ByteModel:
    """`tiny-lm`. A `LanguageModel`."""

    def __init__(self, network: TinyLM, card: LanguageCard) -> None:
        self.network, self.card = network, card

    def tokens_of(self, text: str) -> Tokens:
        ids, spans = bytearray(), list[tuple[int, int]]()
        for place, letter in enumerate(text):
            size = letter.encode("utf-8", "surrogatepass")
            ids += size
            spans += [(place, place + 1)] * len(size)
        return Tokens(tuple(ids), tuple(spans))

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(tokens)
        return found


def load_language_model(spec: ModelSpec, device: str | torch.device = "cpu") -> LanguageModel:
    """The model that `spec` describes. Raises `UserError` if its weights cannot be had or do not fit."""
    if spec.architecture != NAME:
        from robustbench_twicing.models.hugging_face import load_causal_lm

        return load_causal_lm(spec, device)
    tensors, said, where = _read(spec)
    network = TinyLM(settled(spec.attention))
    wrong = network.state_dict().keys() ^ tensors.keys()
    if wrong or any(tensors[name].shape != own.shape for name, own in network.state_dict().items()):
        raise UserError(f"{where} holds no weights of {NAME}.", f"Train some: twicing-bench train --model {spec.name}.")
    trained = said.get("attention", "")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.to(device).eval().requires_grad_(False)
    attention = settled(spec.attention)
    note = f"drop-in: trained with {trained}, run with {attention}" if trained not in ("", str(attention)) else ""
    seed = said.get("seed", "")
    card = LanguageCard(
        spec=spec,
        attention=str(Attention.of_blocks(attention.methods(BLOCKS))),
        blocks=BLOCKS,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights_hash=weights_hash(network),
        vocabulary=VOCABULARY,
        positions=WINDOW,
        tokenizer="bytes",
        prefix=START,
        note=note,
        training_recipe=said.get("training_recipe", ""),
        training_seed=int(seed) if seed.isdigit() else -1,
    )
    return ByteModel(network, card)


def _read(spec: ModelSpec) -> tuple[dict[str, torch.Tensor], dict[str, str], str]:
    from safetensors import safe_open

    kind, _, place = spec.weights.partition(":")
    path = package_file(place) if kind == "package" else place
    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            opened: Any = file
            said = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:  # noqa: BLE001 - damaged in whatever way
        said_ = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read: {said_}.", f"`train --model {NAME}` writes such a file.") from None
    return tensors, said, str(path)


def refuse_longer_windows(window: int, models: Sequence[LanguageModel]) -> None:
    """Raise `UserError` for a window of more tokens than a model takes."""
    for model in models:
        if window > model.card.positions:
            raise UserError(
                f"A window of {window:,} tokens is more than the {model.card.positions:,} positions of "
                f"{model.card.spec.name!r}.",
                f"Pass --window with as many at most, such as 'disjoint({model.card.positions})'.",
            )
