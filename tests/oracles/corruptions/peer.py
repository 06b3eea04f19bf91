"""The package imagecorruptions 1.1.2, run on today's libraries.

Neither its wheel nor its source tree imports as installed: `pkg_resources` left setuptools, numpy 2 dropped `float_`
and scikit-image dropped `multichannel`. What is missing is put back at run time; nothing of theirs is edited.
"""

import importlib.util
import sys
import types
import warnings
from pathlib import Path

import numpy as np


def _stand_ins() -> None:
    """Put back what the peer needs: where a resource file lies, and numpy 1's name of float64."""
    if "pkg_resources" not in sys.modules:
        resources = types.ModuleType("pkg_resources")
        resources.resource_filename = lambda name, relative: str(Path(sys.modules[name].__file__).parent / relative)
        sys.modules["pkg_resources"] = resources
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # noqa: NPY201 - what the peer still asks for


def installed() -> bool:
    """Whether the wheel is there."""
    return importlib.util.find_spec("imagecorruptions") is not None


def load(tree: Path | None = None) -> types.ModuleType:
    """The module `corruptions` of the installed wheel, or of the source tree at `tree` (which needs numba).

    Raises `ModuleNotFoundError` where it, or a library of its own, is not installed.
    """
    if tree is None:
        found = importlib.util.find_spec("imagecorruptions")
        if found is None or found.origin is None:
            raise ModuleNotFoundError("No module named 'imagecorruptions'")
        file, name = Path(found.origin).parent / "corruptions.py", "imagecorruptions_wheel"
    else:
        file, name = Path(tree) / "imagecorruptions" / "corruptions.py", "imagecorruptions_tree"
    _stand_ins()
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # scipy.ndimage.interpolation
        spec.loader.exec_module(module)
    if tree is None:
        gaussian = module.gaussian

        def with_multichannel(image, *args, multichannel=None, **keywords):
            return gaussian(image, *args, channel_axis=-1 if multichannel else None, **keywords)

        module.gaussian = with_multichannel
    return module


def corrupt(module: types.ModuleType, picture: np.ndarray, name: str, severity: int) -> np.ndarray:
    """(height, width, 3) uint8 to the same, as the peer's own `corrupt` does it: by a truncating cast."""
    from PIL import Image

    return np.uint8(getattr(module, name)(Image.fromarray(picture), severity))
