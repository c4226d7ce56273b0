"""The command line. Exit codes: 0 = all done, 1 = something failed, 2 = bad usage or configuration.

75 = nothing failed, but the rate limit or a pause that the vendor asked for lasted longer than the command.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from typing import Any

from include.mltrading.cli import looking, runs, upkeep
from include.mltrading.configuration.settings import Settings
from include.mltrading.errors import MLTradingError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    An error goes to stderr in one line, with --json also to stdout as {"error": ...}.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        # `validate` tells what is wrong with the environment beside everything else.
        settings = Settings.read()[0] if options.command is upkeep.validate else Settings.from_environment()
        exit_code: int = options.command(options, settings)
    except MLTradingError as error:
        return _failed(options, error)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        from psycopg import Error as PsycopgError  # only now, when something has gone wrong

        if not isinstance(error, PsycopgError):
            raise
        from include.mltrading.store.connection import database_errors

        return _failed(options, database_errors(error))
    return exit_code


def _failed(options: argparse.Namespace, error: MLTradingError) -> int:
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    if options.json:
        print(json.dumps({"error": str(error)}))
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m include.mltrading",
        description="Hourly US-equity bars and technical features in PostgreSQL.",
        epilog="Exit codes: 0 = all done, 1 = something failed, 2 = bad usage or configuration, "
        "75 = try again later (rate limit).",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout")
        return sub

    for module in (runs, looking, upkeep):
        module.register(add)
    return parser


if __name__ == "__main__":
    sys.exit(main())
