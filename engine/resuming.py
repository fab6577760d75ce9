"""Going on where a run stood: its folder is taken, its newest state loaded, compared by all processes, and put in place.

Nothing of what the folder says is replaced here, so that a command which is refused leaves the run as it was.
"""

from .checkpoint import load_checkpoint
from .errors import UserError
from .folder import global_batch
from .optimizers import load_with_own_constants
from .position import Position
from .processes import of_first, raise_together, refuse_unequal
from .weights import refuse_unwritable


def take_up(run) -> dict | None:
    """Takes the folder for `run` alone, and puts what the run has made in the state that it holds → that state. Collective.

    Raises `UserError` on all processes when one of them can't go on from there.
    """
    found = []

    def take() -> None:
        refuse_unwritable(run.output)
        run.files.take(run.config.overwrite)
        found.append(load_checkpoint(run.files.checkpoints))  # which sets damaged ones aside, before the others look

    def load() -> dict | None:
        return found[0] if found else load_checkpoint(run.files.checkpoints, set_aside=False)

    of_first(take)
    state = _together(load)
    step = state["position"]["step"] if state else None
    refuse_unequal(step, f"it finds another state in {run.folder} than the first process; all must share that folder.")
    if state is not None:
        _together(lambda: _restore(run, state))
    return state


def position(run) -> Position:
    """Where `run` stands now, and what it stands on."""
    written = run.logbook.length() if run.logbook else 0
    constants, batches = run.files.compared(run.config), global_batch(run.config, run.world)
    return Position(run.step, run.steps_per_epoch, run.config.epochs, run.inputs, run.data, written, constants, batches)


def _together(act):
    """What `act()` gives; a `UserError` of one process is one of all. Collective."""
    made = refused = None
    try:
        made = act()
    except UserError as error:
        refused = str(error)
    raise_together(refused)
    return made


def _restore(run, state: dict) -> None:
    config, then = run.config, Position.of(state["position"])
    anyway = config.resume == "anyway"
    then.refuse_other(position(run), run.folder, anyway)
    run.files.refuse_unlike(config, then.constants, then.global_batch, run.world)
    run.step = then.step
    try:
        run.model.load_state_dict(state["model"])
        load_with_own_constants(run.optimizer, state["optimizer"])
        run.scaler.load_state_dict(state["scaler"])
        for name, thing in run.tracked.items():
            thing.load_state_dict(state[name])
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        if not anyway:
            raise
        raise UserError(
            f"{run.folder} holds a run of another network or optimiser ({str(error).splitlines()[0]}); choose another "
            "--dump_path."
        ) from None
    if not run.epoch_begins:
        run.tally.load_state_dict(state["tally"])
    if 0 < then.epochs < config.epochs:
        rate = float(run.rates[run.step]) if run.step < len(run.rates) else 0.0
        run.say(
            f"{run.folder}: from {then.epochs} to {config.epochs} epochs; the learning rates are those of "
            f"{config.epochs} epochs from here on, the next one is {rate:.3g}."
        )
