"""Names for the tensors that travel through the pipeline. Shapes are checked in the test run (jaxtyping, beartype)."""

import torch
from jaxtyping import Bool, Float, Int

Images = Float[torch.Tensor, "batch 3 height width"]
"""RGB pixels in [0, 1]; inside the `paper` protocol, the same pixels after normalisation."""

Labels = Int[torch.Tensor, " batch"]
"""Class indices into the model's logits."""

Logits = Float[torch.Tensor, "batch classes"]

PerSample = Float[torch.Tensor, " batch"]
"""One number for each sample: a loss, a margin, a distance."""

Mask = Bool[torch.Tensor, " batch"]

Counts = Int[torch.Tensor, " batch"]
