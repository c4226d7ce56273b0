"""What goes wrong, said in one line that names the thing and the remedy.

Every error a user can meet derives from `MLTradingError`; the command line prints its text and exits
with its `exit_code`. Anything else that escapes is a bug and shows its traceback.
"""

from __future__ import annotations


class MLTradingError(Exception):
    """Something failed at run time; the command line exits with 1.

    hopeless: trying again without a change cannot help, so that Airflow need not.
    """

    exit_code = 1
    hopeless = False


class UsageError(MLTradingError):
    """A wrong argument, parameter or configuration."""

    exit_code = 2
    hopeless = True


class VerdictError(MLTradingError):
    """What was counted is not good enough; counting again gives the same."""

    hopeless = True


class DatabaseError(MLTradingError):
    """The database cannot be reached or refused what it was asked."""


class DatabaseUnreachableError(DatabaseError):
    """Nothing answers where the database should be, or it takes no connection."""


class DatabaseRefusedError(UsageError):
    """The server answered and refused the user, the password or the database name, or libpq an option."""


class SchemaError(UsageError):
    """The database schema is missing, older than the code, or was edited after it was applied."""


class EditedMigrationError(SchemaError):
    """A migration was edited after it was applied."""


class MixedSourcesError(UsageError):
    """Simulated and real data would meet in one database."""


class YahooError(MLTradingError):
    """Yahoo did not deliver usable bars; subclasses say why."""


class YahooUnreachableError(YahooError):
    """A transport error, a time-out or a 5xx: trying again later may help."""


class AccessDeniedError(YahooError):
    """Yahoo refused the caller (401, 403 or 999) with a session that it has just given."""


class RateLimitedError(YahooError):
    """Yahoo answered 429, or the words of a 429 under another status.

    retry_after: seconds asked for by the Retry-After header, None where the header was absent.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SymbolNotFoundError(YahooError):
    """Yahoo knows no such symbol."""

    hopeless = True


class SymbolMissingError(YahooError):
    """Yahoo knows no such symbol at the moment, and served its bars a few days ago."""


class NoBarsError(YahooError):
    """Yahoo knows the symbol and served no bar for the window."""


class MalformedReplyError(YahooError):
    """Yahoo's answer cannot be read."""


class OtherHistoryError(YahooError):
    """Yahoo's history of the symbol is not the stored one: it may be another company's."""

    hopeless = True

    def __init__(self, symbol: str, what: str) -> None:
        super().__init__(
            f"{symbol}: {what}; nothing was stored: compare with another source; if Yahoo is right, "
            f"`python -m include.mltrading reload --symbols {symbol}` replaces the stored history by Yahoo's"
        )


class UnfitReplyError(MalformedReplyError):
    """Yahoo's answer is, by its own words, no hourly bars of the US share that was asked for."""

    hopeless = True


class PostponedError(YahooError):
    """The rate limit or a pause that Yahoo asked for lasts longer than the task may.

    75 is sysexits' EX_TEMPFAIL: nothing is wrong, try again later.
    """

    exit_code = 75
