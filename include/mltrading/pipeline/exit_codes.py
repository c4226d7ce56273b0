"""What a task's process tells its operator by its exit code, beside 0 and those of the errors."""

from __future__ import annotations

# BashOperator's: the task is skipped, and so is what comes after it.
EXIT_SKIP = 99
# sysexits' EX_DATAERR: failed, and a retry would fail the same way.
EXIT_HOPELESS = 65
# sysexits' EX_UNAVAILABLE and EX_NOPERM: the database cannot be reached, or refuses the login. The operator
# tells people, since nobody can record it where it belongs.
EXIT_NO_DATABASE = 69
EXIT_DATABASE_REFUSED = 77
