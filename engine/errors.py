"""The one way in which a script tells its user that something is wrong."""

import contextlib
import os
import sys

import torch
import torch.distributed as dist


class UserError(ValueError):
    """One sentence for the user: which file or flag, what is wrong, what would be right. Ends a script with code 2."""

    exit_code = 2


PREEMPTED = 75  # EX_TEMPFAIL: the same command goes on


class MachineError(RuntimeError):
    """One sentence about what the machine, not the user, lacks: memory, or an answer of another process. Code 1."""

    exit_code = 1
    of_one_rank = True


class Preempted(BaseException):
    """A run was asked to stop and nothing of it is lost; the same command goes on. Ends a script with code 75.

    No Exception: a signal comes at any moment, also within a parser whose every Exception is taken for the fault of a file.
    leave: puts the run's folder in order, once nothing else is being done in it.
    """

    exit_code = PREEMPTED

    def __init__(self, sentence: str, leave=lambda: None):
        super().__init__(sentence)
        self.leave = leave


@contextlib.contextmanager
def speaking_to_people():
    """Turns an exception that carries an `exit_code` into its one sentence on stderr; any other one is a bug and is raised.

    Such exceptions are `UserError` and its likes in `datasets/`, `models/` and `losses/`, which know nothing of this
    package. What is wrong before the loop is so on every rank, and only the first one speaks; a file that cannot be read in
    the loop (`DataError`) is one rank's, which says so.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        raise SystemExit(130) from None
    except (Exception, Preempted) as raised:
        error = _in_words(raised)
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        # a loader's worker sends its traceback as the message, which ends in the sentence
        *in_worker, sentence = str(error).rstrip().split(f"{type(error).__name__}: ")
        if os.environ.get("RANK", "0") == "0" or in_worker or getattr(error, "of_one_rank", False):
            print(sentence if code == PREEMPTED else f"error: {sentence}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        raise SystemExit(code) from None


def _in_words(error: BaseException) -> BaseException:
    """The same error, or a `MachineError` in its place where torch's own words would help nobody."""
    if hasattr(error, "exit_code"):
        return error
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in text:
        return MachineError(
            "the memory is used up; lower --batch_size, --image_batch_size or --target_shape, or keep less with --recompute "
            "and --precision bf16. The last saved state is kept: the same command goes on from it."
        )
    if isinstance(error, dist.DistError) or any(sign in text for sign in ("gloo", "Gloo", "NCCL")):
        reason = "did not answer in time (--timeout_minutes)" if "imed out" in text or "timeout" in text else "has ended"
        return MachineError(
            f"process {os.environ.get('RANK', '0')}: another process {reason}. The last saved state is kept: the same command "
            f"goes on from it. ({text.splitlines()[0][:200]})"
        )
    return error
