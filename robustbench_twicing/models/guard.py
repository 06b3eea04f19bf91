"""What the user's own code raises becomes a message that says what was asked of it, and what a model is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robustbench_twicing.errors import UserError

EXPECTED = (
    "A model is a module, or a function, that turns RGB images (batch, 3, H, W) in [0, 1] into logits "
    "(batch, classes): put normalisation inside, and leave softmax away."
)


@contextmanager
def guarded(name: str, when: str) -> Iterator[None]:
    """Turn whatever the code of the model `name` raises within the block into a `UserError`; `when` goes on "when it".

    Not what the device lacks memory for: whoever chose the batch can choose a smaller one.
    """
    try:
        yield
    except (UserError, MemoryError, torch.cuda.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"Model {name!r} raised an error when it {when}: {in_a_line(error)}", EXPECTED) from error


def behind(error: BaseException) -> BaseException:
    """What the user's code raised, if `error` is what `guarded` made of it; else `error` itself."""
    return error.__cause__ if isinstance(error, UserError) and error.__cause__ else error


def in_a_line(error: BaseException) -> str:
    """The kind of an error, and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
