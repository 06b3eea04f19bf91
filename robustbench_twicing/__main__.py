"""The command's way in: `twicing-bench` and `python -m robustbench_twicing`."""

import sys


def main() -> None:
    """Run the command line. Importing it takes a moment, in which Ctrl-C is no crash either."""
    try:
        from robustbench_twicing.cli.app import main as command
    except KeyboardInterrupt:
        sys.exit(130)  # errors.EXIT_INTERRUPTED, which may not be imported yet
    command()


if __name__ == "__main__":
    main()
