"""Causal language models of Hugging Face's transformers (extra `lm`): from disk only, and never with code of theirs."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from robustbench_twicing.attention.in_transformers import apply_in_transformers, require_causal
from robustbench_twicing.attention.methods import settled
from robustbench_twicing.errors import UserError
from robustbench_twicing.models.identity import weights_hash
from robustbench_twicing.models.language import LanguageCard, Tokens
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec


class CausalModel:
    """A model of transformers and its tokenizer. A `LanguageModel`."""

    def __init__(self, network: Any, tokenizer: Any, card: LanguageCard) -> None:
        self.network, self.tokenizer, self.card = network, tokenizer, card

    def tokens_of(self, text: str) -> Tokens:
        try:
            found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        except Exception as error:  # noqa: BLE001 - tokenizers raises nothing more special
            what = f"The tokenizer of {self.card.spec.name!r} cannot cut the text: {str(error).strip()[:200]}"
            raise UserError(what, "Take one that knows every word, or a token for unknown ones.") from None
        spans = tuple((int(start), int(stop)) for start, stop in found["offset_mapping"])
        _refuse_lost(text, spans, self.card.spec.name)
        return Tokens(tuple(map(int, found["input_ids"])), spans)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(input_ids=tokens, use_cache=False).logits
        return found


def load_causal_lm(spec: ModelSpec, device: str | torch.device) -> CausalModel:
    """The model and tokenizer of a folder, a GGUF file, or a name in transformers' cache; nothing is downloaded.

    Raises `UserError` for what cannot be had, is no causal language model, or cannot take the method.
    """
    place = spec.weights.partition(":")[2]
    network, tokenizer = _read(place)
    require_causal(network)
    attention = settled(spec.attention)
    if attention != Attention():
        apply_in_transformers(network, attention)
    blocks = int(getattr(network.config, "num_hidden_layers", 0))
    network.to(device).eval().requires_grad_(False)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    card = LanguageCard(
        spec=spec,
        attention=str(Attention.of_blocks(attention.methods(blocks))),
        blocks=blocks,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        weights_hash=weights_hash(network),
        vocabulary=int(network.config.vocab_size),
        positions=int(getattr(network.config, "max_position_embeddings", 0) or 2**20),
        tokenizer=hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:12],
        prefix=None if prefix is None else int(prefix),
        note="" if attention == Attention() else f"drop-in: trained with softmax, run with {attention}",
    )
    return CausalModel(network, tokenizer, card)


def _read(place: str) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise UserError(
            "Models of Hugging Face need the package transformers.", "pip install 'twicing-bench[lm]'"
        ) from None
    path = Path(place).expanduser()
    said: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    where = place
    if path.is_file():
        where, said["gguf_file"] = str(path.parent), path.name
    elif path.is_dir():
        where = str(path)
    try:
        network = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **said)
        tokenizer = AutoTokenizer.from_pretrained(where, use_fast=True, **said)
    except Exception as error:  # noqa: BLE001 - transformers raises what its readers raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"{place} cannot be loaded as a causal language model with its tokenizer: {reason}",
            "Name a folder that save_pretrained wrote (model and tokenizer), a GGUF file, tiny-lm, or a model in the "
            "cache of Hugging Face. Nothing is downloaded, and no code of a model is run.",
        ) from None
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):  # made up where a folder has none
        raise UserError(f"{place} has no tokenizer.", "Save the model's own beside it: tokenizer.save_pretrained.")
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(f"{place}: its tokenizer says no places in the text.", "Convert it to a fast one.")
    return network, tokenizer


def _refuse_lost(text: str, spans: tuple[tuple[int, int], ...], name: str) -> None:
    """Raise `UserError` where a character that is no white space is in no token."""
    place = 0
    for start, stop in (*spans, (len(text), len(text))):
        if lost := text[place:start].strip():
            raise UserError(
                f"The tokenizer of {name!r} drops {lost[:20]!r}: it would be paid for by nobody.",
                "Take a tokenizer that keeps every character.",
            )
        place = max(place, stop)
