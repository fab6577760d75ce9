"""Where a run stands and what it stands on: what a checkpoint says of itself, and what must not have changed since."""

from dataclasses import asdict, dataclass, field

from .errors import UserError

HOW = "choose another --dump_path, or start over with --overwrite"


@dataclass(frozen=True)
class Position:
    """step: steps done, of `steps_per_epoch` in each of `epochs`; inputs: SHA-256 by path of the weights it started from.

    data: what was learned from (`datasets.files.summary`), a loader; metrics_bytes: length of `metrics.jsonl` at this step.
    constants, global_batch: what `config.yaml` and `run.json` say, for when these are gone.
    """

    step: int
    steps_per_epoch: int
    epochs: int
    inputs: dict[str, str] = field(default_factory=dict)
    data: list[dict] = field(default_factory=list)
    metrics_bytes: int = 0
    constants: dict = field(default_factory=dict)
    global_batch: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, stored: dict) -> "Position":
        """From a checkpoint of any version; the first did not know its epochs, data, nor constants."""
        return cls(**{"epochs": 0, **stored})

    def plain(self) -> dict:
        return asdict(self)

    def finished(self) -> bool:
        return 0 < self.epochs * self.steps_per_epoch <= self.step

    def refuse_other(self, now: "Position", folder, anyway: bool) -> None:
        """Raises `UserError` when a run of `folder` that stands here can't be gone on with as `now` asks for.

        anyway: another number of epochs is wanted, whatever that does to the learning rates.
        """
        names = [[loader["names"] for loader in of.data] for of in (self, now)]
        if self.data and names[0] != names[1]:
            raise UserError(f"{folder} holds a run that learns from other files ({_count(self)}, now {_count(now)}); {HOW}.")
        # numbers of slices are rows of banks and codes; what an earlier version did not write down is not asked for
        if any(then[key] != of.get(key) for then, of in zip(self.data, now.data) for key in ("items", "depths") if key in then):
            raise UserError(
                f"{folder} holds a run of volumes that had other numbers of slices ({_count(self)}, now {_count(now)}); put "
                f"the former files back, {HOW}."
            )
        if list(self.inputs.values()) != list(now.inputs.values()):
            paths = [path for path, digest in now.inputs.items() if digest not in self.inputs.values()]
            raise UserError(f"{folder} holds a run that started from another {', '.join(paths) or 'file'}; {HOW}.")
        if self.steps_per_epoch != now.steps_per_epoch:
            raise UserError(
                f"{folder} holds a run of {self.steps_per_epoch} steps an epoch, which would now be {now.steps_per_epoch}: the "
                f"number of files or processes has changed; go back to what it was, {HOW}."
            )
        if self.epochs in (0, now.epochs) or (anyway and now.epochs * now.steps_per_epoch >= self.step):
            return
        if now.epochs < self.epochs or not self.finished():
            state = "finished run" if self.finished() else "run that is to go on for"
            raise UserError(
                f"{folder} holds a {state} {'of ' * self.finished()}{self.epochs} epochs, --epochs is {now.epochs}; a finished "
                f"run takes more epochs, an unfinished one other epochs with --resume anyway; else {HOW}."
            )


def _count(of: Position) -> str:
    return " and ".join(f"{loader['items']} {loader['what']}" for loader in of.data)
