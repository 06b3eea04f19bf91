"""The command's way in: `twicing-bench` and `python -m robustbench_twicing`."""

import sys


def main() -> None:
    """Run the command line. Importing it takes a moment, in which Ctrl-C is no crash, and a crash is ours, either."""
    try:
        from robustbench_twicing.cli.app import main as command
    except KeyboardInterrupt:
        sys.exit(130)  # errors.EXIT_INTERRUPTED, which may not be imported yet
    except Exception as error:  # noqa: BLE001  # a broken installation, say
        from robustbench_twicing.errors import EXIT_INTERNAL, internal_error

        for line in internal_error(error):
            print(line, file=sys.stderr)
        sys.exit(EXIT_INTERNAL)
    command()


if __name__ == "__main__":
    main()
