"""Methods of attention that other packages register: rows of the table `METHODS`. No torch by itself."""

from robustbench_twicing.attention.methods import METHODS, Row, add_method
from robustbench_twicing.catalog.plugins import find_plugin
from robustbench_twicing.errors import UserError
from robustbench_twicing.spec.methods import Attention


def known_methods(attention: Attention) -> Attention:
    """The attention as it is, after each of its methods that a package registers became a row of the table.

    A name that nobody knows is left for `attention.methods.settled` to refuse. Raises `UserError` for a package that
    cannot be imported, and for what is no row.
    """
    for method, _ in attention.parts:
        if method.name in METHODS:
            continue
        found = find_plugin("methods", method.name)
        if found is None:
            continue
        if not isinstance(found.value, Row):
            raise UserError(
                f"Method {method.name!r} of the package {found.origin.package} is a {type(found.value).__name__}.",
                "It is a Row of robustbench_twicing.attention.methods; docs/plugins.md has an example.",
            )
        add_method(method.name, found.value)
    return attention
