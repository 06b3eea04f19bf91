"""`import robustbench_twicing.timm` registers this package's architectures with timm.

`timm.create_model("deit_tiny_twicing_patch16_224")` knows them from then on, and so does timm's own `train.py`:
`--device-modules robustbench_twicing.timm --model deit_tiny_twicing_patch16_224` (docs/training.md).
"""

from robustbench_twicing.models.registry import EMBEDDED, TWICING_OF

NAMES = (*TWICING_OF, *EMBEDDED)
"""What is registered."""
