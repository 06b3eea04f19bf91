"""ModelSpec -> Classifier: the architecture, the attention, the weights, checked against each other."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Attention as TimmAttention
from torch import nn

from robustbench_twicing.attention.convert import apply_method, apply_softmax
from robustbench_twicing.attention.methods import settled
from robustbench_twicing.attention.paths import MethodAttention
from robustbench_twicing.attention.probe import attention_of
from robustbench_twicing.catalog.locate import package_file
from robustbench_twicing.catalog.zoo import is_drop_in, trained_with
from robustbench_twicing.errors import UserError, unknown_name
from robustbench_twicing.machine.malloc import keep_freed_blocks
from robustbench_twicing.machine.remote import RemotePath, place_of_text
from robustbench_twicing.models.checkpoints import Checkpoint, read_checkpoint
from robustbench_twicing.models.classifier import Classifier, ModelCard
from robustbench_twicing.models.downloads import downloaded
from robustbench_twicing.models.faster.last_block import read_tokens_only
from robustbench_twicing.models.faster.onednn_layers import use_onednn
from robustbench_twicing.models.fit import fitted
from robustbench_twicing.models.identity import weights_hash
from robustbench_twicing.models.preprocessing import preprocessing_of
from robustbench_twicing.spec.methods import Attention
from robustbench_twicing.spec.models import ModelSpec


def load_model(spec: ModelSpec, device: str | torch.device = "cpu") -> Classifier:
    """The model that `spec` describes, in eval mode, weights frozen, normalisation inside.

    `spec.weights` is `package:FILE` (ships with the tool), `file:PATH`, `timm:NAME` or `hf-hub:NAME` (downloaded and
    cached by timm). Every tensor comes from there; none stays random. A model without timm's attention (ResNet, Swin)
    is loaded if `spec` claims softmax attention. Raises `UserError` if the architecture is unknown, the weights cannot
    be had or do not fit, or some block is found to compute another method than `spec` says.
    """
    kind, _, place = spec.weights.partition(":")
    if kind not in _SOURCES:
        raise unknown_name("source of weights", kind, _SOURCES)
    network, checkpoint = _SOURCES[kind](spec, place)
    probed = spec.attention != Attention() or _has_attention_to_probe(network)
    attention = str(_with_attention(network, spec)) if probed else ""
    read_tokens_only(network)
    network.to(device).requires_grad_(False)
    keep_freed_blocks()
    with_onednn = use_onednn(network) > 0
    settings = network.pretrained_cfg
    prepared = preprocessing_of(spec, settings)
    notes = [
        checkpoint.note,
        f"drop-in: trained with {trained_with(spec.weights)}, run with {spec.attention}" if is_drop_in(spec) else "",
        "" if probed else "no attention block was probed",
        _crop_note(settings),
        prepared.note,
    ]
    card = ModelCard(
        spec=spec,
        attention=attention,
        blocks=len(network.blocks) if probed else 0,
        parameters=count_parameters(network),
        weights_hash=weights_hash(network),
        classes=network.num_classes,
        image_size=prepared.image_size,
        recipes=prepared.recipes,
        prepared_as=prepared.whose,
        weights_note="; ".join(filter(None, notes)),
        training_recipe=checkpoint.training_recipe,
        training_seed=checkpoint.training_seed,
    )
    model = Classifier(network, card, tuple(settings["mean"]), tuple(settings["std"])).to(device).eval()
    if with_onednn and torch.device(device).type == "cpu":
        model.granule = _GRANULE
    return model


def _with_attention(network: Any, spec: ModelSpec) -> Attention:
    """Give the network the attention that `spec` says, in place, and return what the probe then finds: the same."""
    brought = sorted({str(part.method) for part in network.modules() if isinstance(part, MethodAttention)})
    if brought:
        raise UserError(
            f"Architecture {spec.architecture} brings {', '.join(brought)} attention of its own.",
            "Name the plain architecture, and the method in `attention`.",
        )
    apply_softmax(apply_method(network, spec.attention))
    expected = Attention.of_blocks(settled(spec.attention).methods(len(network.blocks)))
    found = attention_of(network, spec.attention)
    if found != expected:
        raise UserError(
            f"Model {spec.name!r} should compute {expected} attention, but was found to compute {found}.",
            f"Architecture {spec.architecture} computes attention of its own; name it by what it computes.",
        )
    return found


_GRANULE = 8
"""oneDNN compiles every product for each number of rows, 8 to 10 ms for a forward and gradient of the embedded models,
and keeps 1,024 of them: samples that leave an attack one by one must not make a new size each time."""


def new_network(architecture: str, seed: int = 0, classes: int | None = None, drop_path: float = 0.0) -> Any:
    """timm's `architecture` with random weights that follow `seed`; torch's global generator is left as it was.

    `classes`: how many logits it has; None for as many as the architecture says. `drop_path`: stochastic depth at the
    last block while it is trained.

    With a tag (`deit_tiny_patch16_224.fb_in1k`) it has the preprocessing of those weights. Raises `UserError`, with the
    nearest names, for a name that timm does not know.
    """
    _require_architecture(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
        if drop_path:
            options["drop_path_rate"] = drop_path
        return timm.create_model(architecture, **options)


def _require_architecture(name: str) -> None:
    if not timm.is_model(name):
        raise _unknown_architecture(name)
    plain, _, tag = name.partition(".")
    if tag and name not in timm.list_pretrained(f"{plain}.*"):
        raise _no_such_weights(name, plain)


def _unknown_architecture(name: str) -> UserError:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    return UserError(
        f"timm {timm.__version__} has no architecture {name!r}.",
        f"Did you mean {' or '.join(near)}?" if near else "See timm.list_models().",
    )


def _no_such_weights(name: str, architecture: str) -> UserError:
    known = timm.list_pretrained(f"{architecture}.*")
    return UserError(
        f"timm {timm.__version__} has no weights named {name!r}.",
        f"For {architecture} it has: {', '.join(known) or 'none'}.",
    )


def _from_package(spec: ModelSpec, place: str) -> tuple[Any, Checkpoint]:
    return _from_path(spec, package_file(place))


def _from_file(spec: ModelSpec, place: str) -> tuple[Any, Checkpoint]:
    path = place_of_text(place)
    if isinstance(path, RemotePath):
        try:
            path = path.local_copy()
        except OSError as error:
            raise UserError(f"{place} cannot be read: {error.strerror or error}.", "Check the address.") from None
    return _from_path(spec, path)


def _from_path(spec: ModelSpec, path: Path) -> tuple[Any, Checkpoint]:
    _require_architecture(spec.architecture)
    checkpoint = read_checkpoint(path, spec.prefer)

    def make(classes: int | None) -> Any:
        return new_network(spec.architecture, classes=classes)

    network, note = fitted(make, checkpoint, str(path), spec.resample_pos_embed)
    return network, checkpoint._replace(note=note)


def _from_timm(spec: ModelSpec, place: str) -> tuple[Any, Checkpoint]:
    if not timm.is_model(spec.architecture):
        raise _unknown_architecture(spec.architecture)
    if not timm.is_model_pretrained(place):
        raise _no_such_weights(place, spec.architecture)
    network = downloaded(spec, place)
    note = "" if "." in place else f"timm's default tag {network.pretrained_cfg.get('tag')}"
    return network, Checkpoint({}, note)


def _from_hub(spec: ModelSpec, place: str) -> tuple[Any, Checkpoint]:
    return downloaded(spec, f"hf-hub:{place}"), Checkpoint({}, "")


_SOURCES: dict[str, Callable[[ModelSpec, str], tuple[Any, Checkpoint]]] = {
    "package": _from_package,
    "file": _from_file,
    "timm": _from_timm,
    "hf-hub": _from_hub,
}


def _has_attention_to_probe(network: nn.Module) -> bool:
    """Some block is built on timm's `Attention`, which is all that methods replace, and which the probe can judge."""
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        return False
    return any(isinstance(getattr(block, "attn", None), TimmAttention) for block in blocks)


def _crop_note(settings: dict[str, Any]) -> str:
    """137 of the 1,826 weights in timm 1.0.31 were evaluated on squashed or padded images, which no recipe does."""
    mode = settings.get("crop_mode") or "center"
    return "" if mode == "center" else f"timm's crop mode for this model is {mode!r}; here it is a centre crop"


def count_parameters(network: nn.Module) -> int:
    """How many numbers its parameters hold."""
    return sum(parameter.numel() for parameter in network.parameters())
