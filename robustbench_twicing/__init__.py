"""twicing-bench: is a vision transformer robust, and is one attention mechanism really more robust than another?

The public names are loaded when they are first used, so that reading results never imports torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the names of _WHERE, as a type checker reads them
    from robustbench_twicing.api import evaluate, load_run
    from robustbench_twicing.attention.convert import apply_method, apply_twicing
    from robustbench_twicing.engine.corruptions import corrupt
    from robustbench_twicing.errors import UserError
    from robustbench_twicing.models.named import load_model
    from robustbench_twicing.results.predictions import from_predictions

    __version__: str

_WHERE = {
    "UserError": "robustbench_twicing.errors",
    "apply_method": "robustbench_twicing.attention.convert",
    "apply_twicing": "robustbench_twicing.attention.convert",
    "corrupt": "robustbench_twicing.engine.corruptions",
    "evaluate": "robustbench_twicing.api",
    "load_model": "robustbench_twicing.models.named",
    "from_predictions": "robustbench_twicing.results.predictions",
    "load_run": "robustbench_twicing.api",
}

__all__ = [
    "UserError",
    "__version__",
    "apply_method",
    "apply_twicing",
    "corrupt",
    "evaluate",
    "from_predictions",
    "load_model",
    "load_run",
]

if not TYPE_CHECKING:  # a type checker that sees this function takes every misspelled name for Any

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # a third of what help costs

    try:
        return version("twicing-bench")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE, "__version__"})
