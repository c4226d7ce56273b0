"""`python -m include.standalone …`: the bare-machine commands behind the Makefile.

Exit code 0 = done, 1 = something failed, 2 = bad usage; errors are one line on standard error.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from include.mltrading.errors import MLTradingError
from include.standalone.stack import Stopped

# A module each, with options of its own.
_COMMANDS = ("demo", "run", "shell", "bench", "smoke-live")


def main(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m include.standalone", description="Commands for a bare machine."
    )
    parser.add_argument("command", choices=_COMMANDS, help="each has its own --help")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    chosen = parser.parse_args(arguments)
    module = importlib.import_module(f"include.standalone.{chosen.command.replace('-', '_')}")
    return int(module.main(chosen.options))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MLTradingError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
