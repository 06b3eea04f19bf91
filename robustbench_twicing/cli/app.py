"""The command `twicing-bench`: parse and print, nothing else."""

import errno
import os
import sys
from typing import Annotated, Any

import typer

from robustbench_twicing.cli.commands import LaterCommands
from robustbench_twicing.cli.once import App
from robustbench_twicing.errors import (
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    UserError,
    internal_error,
    no_working_folder,
)
from robustbench_twicing.report.text import prepare_streams, say


class _Main(LaterCommands):
    """The one place where a user's mistake becomes a message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for param in self.get_params(ctx):
            if param.default is None and getattr(param, "is_flag", False):
                param.default = False  # typer's own: None is no bool, and pydantic is imported to make one of it
        return super().parse_args(ctx, args)

    def main(self, *arguments: Any, **options: Any) -> Any:
        prepare_streams()
        try:
            return super().main(*arguments, **options)
        except OSError as error:  # of a help text; what commands do goes through `invoke`
            sys.exit(_refused_by_the_system(error).exit_code)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise _refused(error) from None
        except KeyboardInterrupt:
            print("Interrupted. What was finished is kept; the same command again continues.", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            raise _refused_by_the_system(error) from None


_DISK = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
)
"""What a file system refuses; whoever could say more about it raises a `UserError` before."""


def _refused_by_the_system(error: OSError) -> typer.Exit:
    """Raises what is no matter of the file system again."""
    if error.errno == errno.ENOENT and error.filename is None:  # what only the working folder itself gives
        return _refused(no_working_folder())
    if error.errno not in _DISK:
        raise error
    place = error.filename or "What is written to"  # standard output is a file without a name
    return _refused(UserError(f"{place}: {error.strerror}.", "Check the name, its permissions and the disk."))


def _refused(error: UserError) -> typer.Exit:
    say(f"Error: {error.message}", "bad", stderr=True)
    if error.hint:
        say(error.hint, stderr=True)
    return typer.Exit(error.exit_code)


app = App(
    name="twicing-bench",
    cls=_Main,
    help="Is a vision transformer robust, and is one attention mechanism really more robust than another?",
    epilog="Exit codes: 0 done, 1 some samples failed, 2 wrong use, 3 regressed, 4 inconclusive, 5 numbers that "
    "do not follow from their records or records that are wrong, 70 a fault of ours, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        from robustbench_twicing import __version__

        typer.echo(f"twicing-bench {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options that belong to no single command."""


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="twicing-bench")
    except SystemExit as stop:
        # The reader of our output went away (`| head`), which is no mistake; typer and rich exit with 1 then.
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        _nobody_reads()
    except Exception as error:  # noqa: BLE001  # the last door: whatever got here is ours
        what, where = internal_error(error)
        say(what, "bad", stderr=True)
        print(where, file=sys.stderr)
        sys.exit(EXIT_INTERNAL)
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # what was still in the buffer; the exit code stays what it is
            _nobody_reads()


def _nobody_reads() -> None:
    """Nothing more can be said, also not by the flush at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
