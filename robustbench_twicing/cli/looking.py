"""What the commands that look into models have in common: options, and where their page goes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.cli.options import ATTACKS, COMPUTING, DIRECTORIES, IMAGES, MODELS, Quiet, stated
from robustbench_twicing.cli.printing import AllowCode, Form, Json, To, print_or_write
from robustbench_twicing.cli.progress import loading
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.text import say

LOOKED_AT: Mapping[str, Any] = {
    **MODELS,
    **IMAGES,
    **DIRECTORIES,
    **{key: COMPUTING[key] for key in ("device", "batch_size")},
}
THREAT: Mapping[str, Any] = {key: ATTACKS[key] for key in ("eps", "attacks", "protocol")}
PRINTED: Mapping[str, Any] = {"to": To, "form": Form, "quiet": Quiet, "as_machine": Json, "allow_code": AllowCode}


KEPT: Mapping[str, Any] = {
    "out": Annotated[
        Path | None,
        typer.Option(help="A new folder to keep each image's values in, for `compare A B`. Default: none are kept."),
    ]
}


def look_and_print(said: dict[str, Any], attacked: bool, look: Callable[[Stated, Callable[[str], None]], Page]) -> None:
    """What the options say, looked into by `look`; the page is printed or written. Raises `UserError`."""
    quiet = said["quiet"]

    def looked() -> Page:
        understood = stated({key: value for key, value in said.items() if key not in {*PRINTED, *KEPT}}, attacked)
        loading(quiet)
        return look(understood, lambda what: None if quiet else say(what, "note", stderr=True))

    print_said(said, looked)


def print_said(said: Mapping[str, Any], made: Callable[[], Page]) -> None:
    """Print or write a page as the options of `PRINTED` say. Raises `UserError`."""
    with code_allowed(said["allow_code"]):
        print_or_write(said["to"], said["form"], said["as_machine"], made)
