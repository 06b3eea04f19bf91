"""Metrics that other packages register: rows behind those of the table `METRICS`. No torch by itself."""

from collections.abc import Callable
from typing import Any

import numpy as np

from robustbench_twicing.catalog.plugins import Plugin, find_plugin, plugin_names
from robustbench_twicing.errors import UserError
from robustbench_twicing.metrics.table import METRICS, Metric, add_metric


def add_plugged_metrics() -> list[str]:
    """Give the table every metric that a package registers, and return why some cannot be had: the rest goes on."""
    refused = []
    own = {metric.name for metric in METRICS}
    for name in plugin_names("metrics", own):
        try:
            found = find_plugin("metrics", name)
            if found is not None:
                add_metric(_row(name, found))
        except UserError as error:
            refused.append(f"{error.message} {error.hint}")
    return refused


def _row(name: str, found: Plugin) -> Metric:
    row = found.value
    if not isinstance(row, Metric) or row.name != name:
        what = f"is {row.name!r}" if isinstance(row, Metric) else f"is a {type(row).__name__}"
        raise UserError(
            f"Metric {name!r} of the package {found.origin.package} {what}.",
            "It is a Metric of robustbench_twicing.metrics.table of that name; docs/plugins.md has an example.",
        )
    return row._replace(compute=_guarded(name, found.origin.package, row.compute))


def _guarded(name: str, package: str, compute: Callable[..., Any]) -> Callable[..., Any]:
    """Whatever it raises leaves its own figure empty, and no other."""

    def computed(*inputs: Any) -> float | np.ndarray:
        try:
            found = compute(*inputs)
            return found if isinstance(found, np.ndarray) else float(found)  # an array: a value for each image
        except (UserError, MemoryError):
            raise
        except Exception as error:
            what = f"Metric {name} of the package {package} raised {type(error).__name__}: {error}"
            raise UserError(what, f"Repair or uninstall {package}.") from error

    return computed
