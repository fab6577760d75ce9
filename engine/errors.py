"""The one way in which a script tells its user that something is wrong."""

import contextlib
import os
import sys


class UserError(ValueError):
    """One sentence for the user: which file or flag, what is wrong, what would be right. Ends a script with code 2."""

    exit_code = 2


@contextlib.contextmanager
def speaking_to_people():
    """Turns an exception that carries an `exit_code` into its one sentence on stderr; any other one is a bug and is raised.

    Such exceptions are `UserError` and its likes in `datasets/`, `models/` and `losses/`, which know nothing of this
    package. What is wrong before the loop is so on every rank, and only the first one speaks; a file that cannot be read in
    the loop (`DataError`) is one rank's, which says so.
    """
    try:
        yield
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        # a loader's worker sends its traceback as the message, which ends in the sentence
        *in_worker, sentence = str(error).rstrip().split(f"{type(error).__name__}: ")
        if os.environ.get("RANK", "0") == "0" or in_worker or getattr(error, "of_one_rank", False):
            print(f"error: {sentence}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        raise SystemExit(code) from None
