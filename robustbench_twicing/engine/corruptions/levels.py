"""Pictures as 8-bit levels: whole numbers from 0 to 255, held in float32."""

import torch

TIE = 2.0**-9
"""A value this little below a whole level counts as that level when it is truncated.

Truncation turns a rounding error in the last bit into a whole level wherever the exact value is a whole level (flat
regions under a blur, for one), so the result would hang on the device and the order of a sum. The float64 original has
the same weakness at such values and falls to either side; elsewhere nothing changes.
"""


def truncate_(levels: torch.Tensor, tie: float = TIE) -> torch.Tensor:
    """Whole levels from 0 to 255 in place, by cutting off the fraction as the original's cast to uint8 does."""
    return levels.add_(tie).clamp_(0.0, 255.0).floor_()
