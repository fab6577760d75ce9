"""The one object a script sees: processes, optimiser, schedule, saving, resuming, logging.

The loop stays in the script: `for epoch in run.epochs()`, `for batch in run.batches(loader)`, `run.update(loss, parts)`.
Nothing is written before `epochs()` begins, so that a script that refuses its input leaves no trace.
"""

import contextlib
import socket
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from .checkpoint import sha256
from .compiling import compile_blocks
from .config import Config, as_plain, parse
from .errors import Preempted, UserError, speaking_to_people
from .folder import RunFolder
from .listing import Listing, told, warnings_of
from .logbook import Logbook
from .neighbours import held_out_share
from .opening import opening
from .optimizers import make_optimizer
from .pace import Expectation, peak_memory
from .processes import (
    autocast,
    autocast_forward,
    batches_of,
    computing_dtype,
    join_group,
    leave_group,
    mean_over_ranks,
    of_first,
    refuse_unequal,
)
from .repeated import Repeated
from .resuming import position, take_up
from .saver import Saver
from .schedule import learning_rates
from .scratch import Scratch
from .showing import Showing, Views
from .signals import SAVE, STOP, Signals
from .soundness import Soundness
from .sync_batchnorm import synchronize_batchnorm
from .tally import Tally
from .weights import about_weights, refuse_foreign, write_weights

LOG_EVERY = 10


def start(config: Config, script: str) -> "Run":
    """Joins the process group and gives the run of `script` (its file name)."""
    return Run(config, Path(script).stem)


class Run:
    """One run of one script. Public: `device`, `rank`, `world`, `float_type`, `step`, `epoch`, `folder`, `output`."""

    def __init__(self, config: Config, name: str):
        self.config, self.name = config, name
        self.folder = Path(config.dump_path or f"runs/{name}")
        self.files, self.scratches = RunFolder(self.folder, name), Scratch(self.folder)
        self.saver, self.logbook = Saver(self.files.checkpoints), None
        self.signals = Signals(self._leave, unsaved=lambda: self.saver.failed is not None)
        process = join_group(config.timeout_minutes)
        self.signals.join(process.world)
        self.rank, self.world, self.local_rank, self.device = process.rank, process.world, process.local, process.device
        self.dtype = computing_dtype(config.precision, self.device)
        self.float_type = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.output = Path(config.pretrained_path) / config.checkpoint_name
        self.step = self.epoch = 0
        self.tracked: dict = {}
        self.repeated = Repeated()
        self.inputs: dict[str, str] = {}
        self.files.heed_launcher(config)
        self.files.refuse_what_would_be_lost(config, self.output, self.world)
        memory = self.folder / "checked_files.json"
        self.listing = Listing(config.on_bad_file, config.workers, memory, anew=config.overwrite)
        torch.manual_seed(config.seed)

    # ---- before the loop

    def input(self, name: str) -> Path:
        """The path of an input weight file in `pretrained_path`; its hash goes into what this run writes. Collective.

        Raises `UserError` when a process does not see the file that the first one sees, or none.
        """
        path, digest = Path(self.config.pretrained_path) / name, None
        with contextlib.suppress(OSError):  # reading it says what is wrong
            digest = sha256(path)
        refuse_unequal(digest, f"it does not see {path} as the first process does; all machines must read the same weights.")
        if digest:
            self.inputs[str(path)] = digest
        return path

    def find(self, find, *args):
        """The files that `find(*args)` lists on the first process, without bad ones if `--on_bad_file` says so. Collective."""
        found = self.listing.find(find, *args)
        if self.config.check_data:
            self.say(*warnings_of(self.listing.concerns(found)))
        return found

    def prepare(self, model: nn.Module, *loaders, shares: dict[str, float] | None = None, **tracked) -> nn.Module:
        """Moves `model` to the device, makes its optimiser and schedule, and returns it wrapped for several processes.

        `loaders`: of the data to learn from, None for none; the first one's length is that of an epoch.
        `shares`: of the learning rate, for the parameters whose names begin so.
        `tracked` objects (queue, memory bank, …) have `state_dict` and `load_state_dict`, and are saved and resumed.
        """
        config = self.config
        model = model.to(self.device, self.float_type).to(memory_format=torch.channels_last)
        if config.sync_bn == "pytorch":
            model = synchronize_batchnorm(model)
        self._compile(model)
        self.model, self.tracked, self.steps_per_epoch = model, tracked, len(loaders[0])
        self.loaders = [loader for loader in loaders if loader]
        self.soundness = Soundness(self.folder, self.loaders)
        self.data = [loader.dataset.summary() for loader in self.loaders]
        self.items = next((name for name in ("pictures", "volumes") if self.data[0]["what"].startswith(name)), "items")
        self.items_per_step = loaders[0].batch_sampler.batch_size * self.world
        refuse_unequal(self.data, "it sees other files than the first process; all machines must read the same folders.")
        self.optimizer = make_optimizer(config.optimizer, model, config.base_lr, config.wd, shares)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.rates = learning_rates(
            config.epochs, config.warmup_epochs, len(loaders[0]), config.base_lr, config.final_lr, config.start_warmup
        )
        model.forward = autocast_forward(model.forward, self.dtype, self.device)
        if self.world == 1:
            return model
        # without device_ids what lies on the host stays there; every step uses the same parameters
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)

    def freeze(self, model: nn.Module) -> nn.Module:
        """`model` on the device, in eval mode and without gradients, for good."""
        model = model.to(self.device, self.float_type).to(memory_format=torch.channels_last)
        self._compile(model)
        model.forward = autocast_forward(model.forward, self.dtype, self.device)
        return model.eval().requires_grad_(False)

    # ---- the loop

    def epochs(self):
        """Yields the numbers of the epochs still to do; each finished one is logged and saved.

        An epoch that was stopped in its middle is yielded again, and `batches` gives what is left of it.
        """
        self._open()
        self.signals.where = "between two epochs"
        for epoch in range(self.step // self.steps_per_epoch, self.config.epochs):
            self.epoch = epoch
            self.model.train()
            if self.epoch_begins:
                self.tally.start()
            try:
                yield self.epoch
            except GeneratorExit:  # something else than this run goes on
                self.signals.release()
                raise
            self._end_epoch()
        if self.logbook:
            self.logbook.close()

    @property
    def epoch_begins(self) -> bool:
        """Whether no step of this epoch was done yet: what is computed once an epoch, for all of its steps, is due."""
        return self.step % self.steps_per_epoch == 0

    def batches(self, *loaders):
        """Yields the next batch of each loader, on the device (alone, when there is one loader); reseeds dropout each step.

        A loader that is None gives None beside the others' batches.
        """
        for loader in filter(None, loaders):
            loader.batch_sampler.set_epoch(self.epoch, self.step % self.steps_per_epoch)
        waiting = time.monotonic()
        for batch in batches_of(loaders, self.device):
            self.tally.waited += time.monotonic() - waiting
            self.signals.at_once = False
            torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 4099 + self.rank)
            self._shown = [one["on_host"]["index"] for one in (batch if isinstance(batch, list) else [batch]) if one]
            yield batch
            if not self.epoch_begins:
                self._between_steps()
            waiting = time.monotonic()

    def evaluate(self, *loaders, train: bool = False, what: str = ""):
        """As `batches`, but without gradients, and with the model in eval mode unless `train`. `what`: shown as progress."""
        self.model.train(train)
        bar = tqdm(total=len(loaders[0]), desc=what, unit="batch", leave=False, disable=self.rank > 0 or not what)
        with torch.no_grad(), bar:
            for batch in batches_of(loaders, self.device):
                yield batch
                bar.update()
        self.model.train()

    def update(self, loss: torch.Tensor, parts: dict[str, torch.Tensor] | None = None, frozen=None) -> None:
        """One step of the optimiser at the scheduled rate. `frozen`: a module whose parameters stay as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rates[self.step]) * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        for parameter in frozen.parameters() if frozen is not None else ():
            parameter.grad = None
        if self.config.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step, self._trained = self.step + 1, True
        figures = self.tally.add({"loss": loss, **(parts or {})})
        self.soundness.add(self.step, figures, self._shown)
        if self.rank == 0:
            self.logbook.bar.update()
            self.warn(self.expectation.after(self.step))
        if self.step % LOG_EVERY == 0:
            self._log_step(figures)

    def show(self, views: Views | None, embeddings: torch.Tensor | None = None, indices=None) -> None:
        """For TensorBoard, once an epoch: views of a batch, and a map of embeddings (`engine.showing.Showing.add`).

        indices: numbers of the items in the data set that is learned from; None = those of the batch that came last.
        """
        if self.rank == 0:
            self.showing.add(views, embeddings, self._shown[0] if indices is None else indices)

    def picture(self, name: str, pixels: np.ndarray) -> None:
        """A picture (h, w) or (h, w, 3) uint8 for TensorBoard, of the first process, between `epochs` and its end."""
        if self.rank == 0:
            self.logbook.picture(name, pixels, self.step)

    def log(self, **figures: float) -> None:
        """Figures of this epoch beside the losses."""
        self.tally.report.update(figures)

    def watch(self, guard) -> None:
        """Logs what the collapse guard saw in this epoch, and says its warnings; those that stay ever less often."""
        self.soundness.refuse_nonfinite(self.tally.means())
        figures, warnings = guard.report()
        self.log(**figures)
        for warning in self.repeated.to_say(warnings):
            self.say(f"warning: {warning}")

    def probe(self, labelled, embed) -> None:
        """Logs how many held-out files get their label from their nearest neighbours among the other labelled files.

        labelled: a `datasets.labelled.Labelled` or None; embed: batch → (B, D). The first rank does it, without gradients.
        """
        if labelled is None or self.rank:
            return
        rows = []
        for batch in self.evaluate(labelled.loader):
            with autocast(self.dtype, self.device):
                rows.append(embed(batch).float().cpu())
        share = held_out_share(
            torch.cat(rows).numpy(), labelled.labels, labelled.collections, labelled.subjects, labelled.held_out
        )
        self.log(knn_held_out=share)

    def warn(self, sentence: str | None) -> None:
        """Says a warning, if there is one."""
        if sentence:
            self.say(sentence)

    def say(self, *sentences: str) -> None:
        """Sentences for the user, once."""
        for sentence in sentences if self.rank == 0 else ():
            self.logbook.say(sentence) if self.logbook else print(sentence, flush=True)

    def scratch(self, name: str, size: int) -> Path:
        """A file of `size` bytes in the run's folder, the same for all processes; it goes when the run is finished."""
        if self.rank == 0:
            self.scratches.make(name, size)
        self.wait_for_all()
        return self.folder / name

    def wait_for_all(self) -> None:
        """Goes on when all processes have come here."""
        if self.world > 1:
            dist.barrier()

    # ---- after the loop

    def finish(
        self, stage: str, method: str, state: dict[str, torch.Tensor], flat: bool = False, more: dict | None = None
    ) -> None:
        """Writes the weight file of the stage, unless it is there already; no rank goes on before it is there.

        more: what its readers must know besides the constants, as plain values.
        """
        of_first(lambda: self._write_output(stage, method, state, flat, more or {}))
        self.scratches.remove()
        self.signals.release()

    # ---- inside

    def _write_output(self, stage: str, method: str, state: dict[str, torch.Tensor], flat: bool, more: dict) -> None:
        self.saver.wait()
        self.warn(self.saver.said())
        about = {**more, "stage": stage, "method": method, "run": self.run_id, "step": self.step}
        about |= {"config": as_plain(self.config), "inputs": self.inputs, "data": self.data}
        about["left_out"] = self.listing.left_out
        if self._trained or not self._written():
            self._keep_foreign()
            write_weights(self.output, state, about, flat)
            self.say(f"wrote {self.output}")
        self.warn(told(self.listing.left_out))
        self.files.end_preemption()
        self.files.leave()

    def _keep_foreign(self) -> None:
        """Another run may have written a file of this name while this one went on."""
        try:
            refuse_foreign(self.output, self.run_id, self.files.replaces)
        except UserError:
            own = self.output.with_suffix(f".{self.run_id}{self.output.suffix}")
            self.warn(f"warning: another run has written {self.output} meanwhile; the weights of this one go to {own}.")
            self.output = own

    def _written(self) -> bool:
        about = about_weights(self.output) if self.output.exists() else {}
        return (about.get("run"), about.get("step")) == (self.run_id, self.step)

    def _compile(self, model: nn.Module) -> None:
        if self.config.compile:
            self.warn(compile_blocks(model, self.device))

    def _open(self) -> None:
        """Makes the run's folder, or takes up what it holds."""
        self.tally, self.showing, self.expectation = Tally(self.device), Showing(), Expectation(len(self.rates))
        state = take_up(self)
        step = state["position"]["step"] if state else None
        self.signals.at_once = False  # what a process that goes leaves would be taken for what an earlier start has left
        self.run_id = of_first(lambda: self.files.begin(self.config, self.world))
        self.signals.at_once = True
        self._saved_step, self._save_at, self._trained = step, self._next_save(), False
        if self.rank == 0:
            self.files.cut_metrics(state["position"]["metrics_bytes"] if state else 0)
            events = Path(self.config.log_dir or self.folder) / self.config.tensorboard_name
            self.logbook = Logbook(self.files.metrics, events, self.name, self.step, len(self.rates), self.items)
            self.listing.save()
            if self.listing.left_out:
                self.warn(told(self.listing.left_out))
                if state is None:
                    self.logbook.note("left_out", self.listing.left_out)
        if getattr(self.config, "image_store", "off") != "off" and self.config.epochs > self.step // self.steps_per_epoch + 1:
            for loader in self.loaders:
                if hasattr(loader.dataset, "keep_decoded"):
                    loader.dataset.keep_decoded(self._room_for_pictures)
        if self.rank == 0:
            self.say(*opening(self, resumed=state is not None))

    def _room_for_pictures(self, size: int) -> Path | None:
        """A file of `size` bytes for the decoded pictures, one a machine; None where they are better decoded each time."""
        name = f"pictures-{socket.gethostname()}"
        if self.local_rank == 0:
            self.say(self.scratches.make_if_small(name, size, always=self.config.image_store == "on"))
        self.wait_for_all()
        return self.scratches.found(name, size)

    def _next_save(self) -> float:
        minutes = self.config.checkpoint_minutes
        return time.monotonic() + 60 * minutes if minutes else float("inf")

    def _between_steps(self) -> None:
        """Saves when it is time to, or when a signal asked any process to stop, which is then done."""
        self.warn(self.saver.said())
        due = SAVE if self.rank == 0 and time.monotonic() >= self._save_at else 0
        agreed = self.signals.agreed(max(self.signals.wish(), due))
        if agreed:
            self._save()
        if agreed == STOP:
            self._stop()

    def _save(self, keep_copy: bool = False) -> None:
        self._save_at = self._next_save()
        if self._saved_step == self.step:
            return
        self._saved_step = self.step
        state = {name: thing.state_dict() for name, thing in self.tracked.items()}  # collective: every rank takes part
        state["tally"] = self.tally.state_dict()
        self.soundness.refuse_broken(self.model, state["tally"]["sums"])
        if self.rank:
            return
        self.saver.wait()
        self.warn(self.saver.said())
        self.warn(self.files.mended(self.config, self.world, self.run_id))
        state["position"] = position(self).plain()
        state |= {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.saver.save(self.step, state | {"scaler": self.scaler.state_dict()}, keep_copy)

    def _stop(self) -> None:
        """Ends this process as preempted, when the state is on the disk."""
        stopped = self.signals.preempted(f"after step {self.step}")
        self.saver.wait()
        self.files.mark_preempted(str(stopped))
        self.wait_for_all()  # a launcher that sees one process end ends the others
        raise stopped

    def _leave(self, sentence: str) -> None:
        """What `launch` does when this process was asked to stop, wherever it was."""
        self.files.mark_preempted(sentence)
        self.scratches.remove()
        self.saver.wait()
        if self.logbook:
            self.logbook.close()
        if self.saver.failed:
            raise UserError(f"{sentence.split(';')[0]}, but {self.saver.failed}; make room, and give the same command again.")

    def _log_step(self, figures: torch.Tensor) -> None:
        values = dict(zip(self.tally.names, mean_over_ranks(figures)))
        self.soundness.refuse_nonfinite(values)
        for thing in self.tracked.values():
            values |= thing.in_use() if hasattr(thing, "in_use") else {}
        values |= {"lr": float(self.rates[self.step - 1]), **self.tally.lap(self.items_per_step)}
        if self.rank == 0:
            self.logbook.step(self.step, {**values, "memory_gb": peak_memory(self.device)})

    def _end_epoch(self) -> None:
        values = self.tally.means()
        self.soundness.refuse_nonfinite(values)
        if self.rank == 0:
            speed = {**self.tally.speed(self.items_per_step), "memory_gb": peak_memory(self.device)}
            self.logbook.epoch(self.step, self.epoch, self.config.epochs, {**values, **self.tally.report, **speed})
            last = self.epoch + 1 == self.config.epochs
            self.showing.give(self.logbook, self.step, self.loaders[0].dataset.name_of, for_projector=last)
        self._save(keep_copy=(self.epoch + 1) % self.config.checkpoint_freq == 0)
        if self.signals.agreed_now(self.signals.wish()) == STOP:
            self._stop()
        self.signals.at_once = True


def launch(config_class: type[Config], main) -> None:
    """The last line of a script: parses the command line and runs `main(config)`."""
    with speaking_to_people():
        try:
            main(parse(config_class))
        except Preempted as stopped:
            stopped.leave()
            raise
        leave_group()
