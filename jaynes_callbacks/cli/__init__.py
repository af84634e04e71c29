"""The command ``jaynes``: parse, call, print.

A command is a module of this package with `add_parser` and `run`, named in `COMMANDS`.  What it
needs is imported when it runs, so that ``jaynes --help`` answers at once.

Exit status: 0 if all that was asked for was done, 1 if a part of it failed, 2 for wrong usage.
"""

import argparse
import sys
from collections.abc import Sequence

from jaynes_callbacks._version import __version__
from jaynes_callbacks.cli import compare, fit, report
from jaynes_callbacks.cli.status import FAILED, INTERRUPTED, WRONG_USAGE, UsageError

__all__ = ["COMMANDS", "main"]

#: Each adds its parser to the subparsers, and sets `run` as what the parsed arguments go to.
COMMANDS = (fit, compare, report)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what stands behind the command's name; by default those of this process.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except UsageError as error:
        return _say(error, WRONG_USAGE)
    except KeyboardInterrupt:
        return _say("interrupted; what was measured before is kept", INTERRUPTED)
    except BrokenPipeError:
        # Who reads the output has gone, as `head` does.
        sys.stderr.close()
        return FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaynes",
        description="Measure whether a network's weights are at arbitrage equilibrium.",
        epilog="exit status: 0 all done, 1 a part failed, 2 wrong usage",
    )
    parser.add_argument("--version", action="version", version=f"jaynes {__version__}")
    subparsers = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def _say(sentence: object, status: int) -> int:
    sys.stderr.write(f"jaynes: {sentence}\n")
    return status
