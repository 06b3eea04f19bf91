"""`twicing-bench config`: what is set, and where each value came from."""

from robustbench_twicing.catalog.config import settings
from robustbench_twicing.catalog.plugins import code_allowed
from robustbench_twicing.cli.once import App
from robustbench_twicing.cli.printing import AllowCode, Json, show_page
from robustbench_twicing.report.config import config_page

app = App(help="Where data sets and checkpoints lie, and defaults; `config show` lists them.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Where data sets and checkpoints lie, and defaults; `config show` lists them."""


@app.command()
def show(allow_code: AllowCode = False, as_machine: Json = False) -> None:
    """Every value that can be set, and whether it came from a file, the environment or a default.

    A flag of a command wins over all of them.
    """
    with code_allowed(allow_code):
        show_page(config_page(settings()), as_machine)
