"""`twicing-bench info`."""

from robustbench_twicing.cli.printing import Json, show_page
from robustbench_twicing.report.info import info_page


def info(as_machine: Json = False) -> None:
    """Versions, device and paths of this installation, to copy into a report of a fault.

    Home folders and the names of user and host are left out; of environment variables only names are said.
    """
    from robustbench_twicing.runner.installed import installed

    show_page(info_page(installed()), as_machine)
