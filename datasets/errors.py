"""What a user's data can do wrong, and how the commands of this package say it."""

import contextlib
import sys


class DataError(ValueError):
    """One sentence for the user: which file or folder, what is wrong, what would be right. Ends a script with code 2."""

    exit_code = 2


@contextlib.contextmanager
def as_sentences():
    """A `DataError` inside becomes its sentence on stderr and the exit code, without a traceback."""
    try:
        yield
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
