"""What the commands that look into models have in common: options, and where their page goes."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.catalog.resolve import Stated
from robustbench_twicing.cli.options import ATTACKS, COMPUTING, DIRECTORIES, IMAGES, MODELS, Quiet, stated
from robustbench_twicing.cli.printing import AllowCode, Json
from robustbench_twicing.cli.progress import loading
from robustbench_twicing.errors import UserError
from robustbench_twicing.report.formats import FORMATS
from robustbench_twicing.report.formats import show as show_as
from robustbench_twicing.report.page import Page
from robustbench_twicing.report.targets import target
from robustbench_twicing.report.text import say

To = Annotated[
    list[str] | None,
    typer.Option("--to", help="Write it to a file instead: .html, .tex, .md, .csv, .json …, or plots/; repeatable."),
]
Form = Annotated[
    str | None, typer.Option("--format", help=f"How it is printed: {', '.join(FORMATS)}. Default terminal.")
]

LOOKED_AT: Mapping[str, Any] = {
    **MODELS,
    **IMAGES,
    **DIRECTORIES,
    **{key: COMPUTING[key] for key in ("device", "batch_size")},
}
THREAT: Mapping[str, Any] = {key: ATTACKS[key] for key in ("eps", "attacks", "protocol")}
PRINTED: Mapping[str, Any] = {"to": To, "form": Form, "quiet": Quiet, "as_machine": Json, "allow_code": AllowCode}


def look_and_print(said: dict[str, Any], attacked: bool, look: Callable[[Stated, Callable[[str], None]], Page]) -> None:
    """What the options say, looked into by `look`; the page is printed or written. Raises `UserError`."""
    quiet = said["quiet"]

    def looked() -> Page:
        understood = stated({key: value for key, value in said.items() if key not in PRINTED}, attacked)
        loading(quiet)
        return look(understood, lambda what: None if quiet else say(what, "note", stderr=True))

    print_or_write(said, looked)


def print_or_write(said: Mapping[str, Any], made: Callable[[], Page]) -> None:
    """Print a page or write it to the files that `said` names, which are looked at before it is made."""
    to, form, as_machine, allow_code = (said[name] for name in ("to", "form", "as_machine", "allow_code"))
    if form and as_machine:
        raise UserError("--json and --format are both given.", "--json is --format json; leave one of them away.")
    with code_allowed(allow_code):
        targets = [target(name) for name in to or []]
        page = made()
        for place in targets:
            place.save(page)
        if form or as_machine or not targets:
            show_as(page, "json" if as_machine else form or "terminal")
        for place in targets:
            say(f"Wrote {place.path}", stderr=True)
