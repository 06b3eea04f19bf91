"""What cleverhans 4.0 computes under the name SPSA, one image at a time, from given random numbers.

Written from the facts of cleverhans/torch/attacks/spsa.py (574efc1), with torch's own Adam: the loss of a perturbation
p is the margin at x + p, and the routine that estimates its gradient is handed x + δ as p. The images that the model
sees are therefore x + x + δ, whatever the perturbation is by then.
"""

from collections.abc import Callable, Sequence

import torch


def cleverhans_spsa(
    model: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    label: int,
    eps: float,
    start: torch.Tensor,
    signs: Sequence[torch.Tensor],
    delta: float = 0.01,
    learning_rate: float = 0.01,
) -> torch.Tensor:
    """`image` and `start` (3, H, W); `signs` one (samples, 3, H, W) tensor of ±1 for each iteration."""
    perturbation = start.clone()
    adam = torch.optim.Adam([perturbation], lr=learning_rate)
    for sign in signs:
        both = torch.cat((sign, -sign))
        with torch.no_grad():
            logits = model(image + image + delta * both)
        others = torch.cat((logits[:, :label], logits[:, label + 1 :]), dim=1).amax(1)
        descended = logits[:, label] - others  # Adam goes down, so the label loses its lead
        perturbation.grad = (descended[:, None, None, None] * both).mean(0) / delta
        adam.step()
        perturbation.clamp_(-eps, eps)
    return image + perturbation
