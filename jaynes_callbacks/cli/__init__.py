"""The command ``jaynes``: parse arguments, call the package, print the result.

A command is a module of this package with `add_parser` and `run`, named in `COMMANDS`.  It imports
what it needs when it runs, so that ``jaynes --help`` answers at once.

Exit status: 0 if all that was asked for was done, 1 if a part of it failed, 2 for wrong usage.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from jaynes_callbacks._extras import MissingExtraError
from jaynes_callbacks._version import __version__
from jaynes_callbacks.cli import compare, fit, report, table2
from jaynes_callbacks.cli.options import FAILED, INTERRUPTED, WRONG_USAGE, UsageError
from jaynes_callbacks.cli.output import accept_any_text, discard_output, print_error
from jaynes_callbacks.records.printable import printable

__all__ = ["COMMANDS", "main"]

#: Each adds its parser, whose `run` default is the function that takes the parsed arguments.
COMMANDS = (fit, compare, report, table2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those after the program's name; by default those of this process.

    Returns:
        The exit status.
    """
    accept_any_text()
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        print_error(error)
        return WRONG_USAGE
    except MissingExtraError as error:
        print_error(error)
        return FAILED
    except KeyboardInterrupt:
        print_error("interrupted; what was measured before is kept")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has ended, as `head` does.
        discard_output()
        return FAILED
    except OSError as error:
        what = "the output" if error.filename is None else error.filename
        print_error(f"{what} cannot be read or written ({error.strerror or error})")
        discard_output()
        return FAILED
    return status


class _Parser(argparse.ArgumentParser):
    """Reports wrong arguments, among which may be names of files, as every other error."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaynes",
        description="Measure whether a network's weights are at arbitrage equilibrium.",
        epilog="exit status: 0 all done, 1 a part failed, 2 wrong usage",
    )
    parser.add_argument("--version", action="version", version=f"jaynes {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser
