"""The one object a script sees: processes, optimiser, schedule, saving, resuming, logging.

The loop stays in the script: `for epoch in run.epochs()`, `for batch in run.batches(loader)`, `run.update(loss, parts)`.
Nothing is written before `epochs()` begins, so that a script that refuses its input leaves no trace.
"""

import itertools
import json
import os
import shutil
import time
import uuid
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from .checkpoint import load_checkpoint, save_checkpoint, sha256, write_atomically
from .config import Config, as_plain, parse, read_flags, write_config
from .errors import UserError, speaking_to_people
from .logbook import Logbook
from .neighbours import held_out_share
from .optimizers import make_optimizer
from .processes import autocast, computing_dtype, join_group, leave_group, to_device
from .schedule import learning_rates
from .sync_batchnorm import synchronize_batchnorm
from .weights import refuse_foreign, write_weights

LOG_EVERY = 10
# a run may go on although these differ: they change neither what is computed nor what is written
NOT_COMPARED = {"workers", "checkpoint_freq", "log_dir", "tensorboard_name", "overwrite", "resume", "config"}


def start(config: Config, script: str) -> "Run":
    """Joins the process group and gives the run of `script` (its file name)."""
    return Run(config, Path(script).stem)


class Run:
    """One run of one script. Public: `device`, `rank`, `world`, `float_type`, `step`, `epoch`, `folder`, `output`."""

    def __init__(self, config: Config, name: str):
        process = join_group()
        self.config, self.name = config, name
        self.rank, self.world, self.device = process.rank, process.world, process.device
        self.dtype = computing_dtype(config.precision, self.device)
        self.float_type = torch.float64 if self.dtype == torch.float64 else torch.float32
        self.folder = Path(config.dump_path or f"runs/{name}")
        self.output = Path(config.pretrained_path) / config.checkpoint_name
        self.step = self.epoch = 0
        self.tracked: dict = {}
        self.inputs: dict[str, str] = {}
        self.report: dict[str, float] = {}
        self.scratches: list[Path] = []
        self._refuse_what_would_be_lost()
        torch.manual_seed(config.seed)

    # ---- before the loop

    def input(self, name: str) -> Path:
        """The path of an input weight file in `pretrained_path`; its hash goes into what this run writes."""
        path = Path(self.config.pretrained_path) / name
        if path.is_file():
            self.inputs[str(path)] = sha256(path)
        return path

    def prepare(self, model: nn.Module, *loaders, **tracked) -> nn.Module:
        """Moves `model` to the device, makes its optimiser and schedule, and returns it wrapped for several processes.

        `loaders`: of the data to learn from, None for none; the first one's length is that of an epoch.
        `tracked` objects (queue, memory bank, …) have `state_dict` and `load_state_dict`, and are saved and resumed.
        """
        config = self.config
        model = model.to(self.device, self.float_type).to(memory_format=torch.channels_last)
        if config.sync_bn == "pytorch":
            model = synchronize_batchnorm(model)
        self.model, self.tracked, self.steps_per_epoch = model, tracked, len(loaders[0])
        self.data = [loader.dataset.summary() for loader in filter(None, loaders)]
        self.optimizer = make_optimizer(config.optimizer, model, config.base_lr, config.wd)
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
        model.forward = autocast_forward(model.forward, self.dtype, self.device)
        return model.eval().requires_grad_(False)

    # ---- the loop

    def epochs(self):
        """Yields the numbers of the epochs still to do; each finished one is logged and saved."""
        self._open()
        for epoch in range(self.step // self.steps_per_epoch, self.config.epochs):
            self.epoch = epoch
            self.model.train()
            self._begin_epoch()
            yield self.epoch
            self._end_epoch()
        if self.rank == 0:
            self.logbook.close()

    def batches(self, *loaders):
        """Yields the next batch of each loader, on the device (alone, when there is one loader); reseeds dropout each step.

        A loader that is None gives None beside the others' batches.
        """
        for loader in filter(None, loaders):
            loader.batch_sampler.set_epoch(self.epoch)
        waiting = time.monotonic()
        for batch in self._on_device(loaders):
            self._waited += time.monotonic() - waiting
            torch.manual_seed((self.config.seed * 1_000_003 + self.step) * 4099 + self.rank)
            yield batch
            waiting = time.monotonic()

    def evaluate(self, *loaders, train: bool = False, what: str = ""):
        """As `batches`, but without gradients, and with the model in eval mode unless `train`. `what`: shown as progress."""
        self.model.train(train)
        bar = tqdm(total=len(loaders[0]), desc=what, unit="batch", leave=False, disable=self.rank > 0 or not what)
        with torch.no_grad(), bar:
            for batch in self._on_device(loaders):
                yield batch
                bar.update()
        self.model.train()

    def _on_device(self, loaders):
        iterators = [itertools.repeat(None) if loader is None else iter(loader) for loader in loaders]
        while True:
            try:
                batches = [to_device(next(iterator), self.device) for iterator in iterators]
            except StopIteration:
                return
            except Exception as error:
                error.of_one_rank = True  # the other ranks read other files
                raise
            yield batches[0] if len(batches) == 1 else batches

    def update(self, loss: torch.Tensor, parts: dict[str, torch.Tensor] | None = None, frozen=None) -> None:
        """One step of the optimiser at the scheduled rate. `frozen`: a module whose parameters stay as they are."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(self.rates[self.step])
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        for parameter in frozen.parameters() if frozen is not None else ():
            parameter.grad = None
        if self.config.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        figures = torch.stack([loss.detach(), *(part.detach() for part in (parts or {}).values())]).float()
        self._names, self._sums = ["loss", *(parts or {})], self._sums + figures
        self._steps_done += 1
        if self.rank == 0:
            self.logbook.bar.update()
        if self.step % LOG_EVERY == 0:
            self._log_step(figures)

    def log(self, **figures: float) -> None:
        """Figures of this epoch beside the losses."""
        self.report.update(figures)

    def watch(self, guard) -> None:
        """Logs what the collapse guard saw in this epoch, and says its warnings."""
        self._refuse_nonfinite(dict(zip(self._names, self._mean_over_ranks(self._sums / self._steps_done))))
        figures, warnings = guard.report()
        self.log(**figures)
        for warning in warnings:
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
        logbook = getattr(self, "logbook", None)
        for sentence in sentences if self.rank == 0 else ():
            logbook.say(sentence) if logbook else print(sentence, flush=True)

    def scratch(self, name: str, size: int) -> Path:
        """A file of `size` bytes in the run's folder, the same for all processes; it goes when the run is finished."""
        path = self.folder / name
        if self.rank == 0:
            try:
                with open(path, "wb") as file:
                    os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                path.unlink(missing_ok=True)
                reason = f"{error.strerror}: {size / 2**30:.1f} GiB are needed"
                raise UserError(f"{path} cannot be made ({reason}); choose another --dump_path or keep less.") from None
        self.scratches.append(path)
        self.wait_for_all()
        return path

    def wait_for_all(self) -> None:
        """Goes on when all processes have come here."""
        if self.world > 1:
            dist.barrier()

    # ---- after the loop

    def finish(self, stage: str, method: str, state: dict[str, torch.Tensor], flat: bool = False) -> None:
        """Writes the weight file of the stage; no rank goes on before it is there."""
        if self.rank == 0:
            config = as_plain(self.config)
            about = {"stage": stage, "method": method, "run": self.run_id, "config": config, "inputs": self.inputs}
            about["data"] = self.data
            write_weights(self.output, state, about, flat)
            self.say(f"wrote {self.output}")
            for path in self.scratches:
                path.unlink(missing_ok=True)
        self.wait_for_all()

    # ---- inside

    def _refuse_what_would_be_lost(self) -> None:
        config, used = self.config, self.folder / "config.yaml"
        if config.overwrite:
            return
        identity = self.folder / "run.json"
        refuse_foreign(self.output, json.loads(identity.read_text())["id"] if identity.exists() else None, overwrite=False)
        if not used.exists():
            return
        if config.resume == "never":
            raise UserError(f"{self.folder} holds a run; choose another --dump_path, or start over with --overwrite.")
        then, now = as_plain(parse(type(config), read_flags(type(config), str(used)))), as_plain(config)
        changed = [f"{k} was {then[k]}, is {now[k]}" for k in now if then[k] != now[k] and k not in NOT_COMPARED]
        if changed:
            raise UserError(
                f"{self.folder} holds a run of another configuration ({'; '.join(changed)}); "
                "choose another --dump_path, or start over with --overwrite."
            )

    def _open(self) -> None:
        """Makes the run's folder, or takes up what it holds."""
        state = None
        if self.rank == 0:
            if self.config.overwrite:
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
                for name in ("run.json", "config.yaml", "metrics.jsonl"):
                    (self.folder / name).unlink(missing_ok=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            self.run_id = self._identity()
            write_config(self.config, self.folder / "config.yaml")
            state = load_checkpoint(self.folder / "checkpoints")
        if self.world > 1:
            dist.barrier()  # the first rank alone sets damaged checkpoints aside
        if self.rank:
            state = load_checkpoint(self.folder / "checkpoints")
        if state is not None:
            self._restore(state)
        if self.rank == 0:
            self._cut_metrics(state)
            events = Path(self.config.log_dir or self.folder) / self.config.tensorboard_name
            self.logbook = Logbook(self.folder, events, self.name, self.step, len(self.rates))
            self._announce(resumed=state is not None)

    def _identity(self) -> str:
        path = self.folder / "run.json"
        if not path.exists():
            text = json.dumps({"format_version": 1, "id": uuid.uuid4().hex, "script": self.name})
            write_atomically(path, lambda temporary: temporary.write_text(text))
        return json.loads(path.read_text())["id"]

    def _announce(self, resumed: bool) -> None:
        if self.step >= len(self.rates):
            return self.say(f"{self.folder}: this run is finished; nothing is left to train.")
        what = f"going on at epoch {self.step // self.steps_per_epoch + 1}" if resumed else "starting"
        self.say(
            f"{self.name}: {what} of {self.config.epochs} epochs of {self.steps_per_epoch} steps, {self.world} process(es) on "
            f"{self.device.type}, {str(self.dtype).removeprefix('torch.')}, run in {self.folder}"
        )

    def _restore(self, state: dict) -> None:
        position = state["position"]
        if position["steps_per_epoch"] != self.steps_per_epoch:
            raise UserError(
                f"{self.folder} holds a run of {position['steps_per_epoch']} steps an epoch, which would now be "
                f"{self.steps_per_epoch}: the number of files or processes has changed; go back to what it was, choose another "
                "--dump_path, or start over with --overwrite."
            )
        for path, digest in self.inputs.items():
            if position["inputs"].get(path) != digest:
                raise UserError(
                    f"{self.folder} holds a run that started from another {path}; choose another --dump_path, or start over "
                    "with --overwrite."
                )
        self.step = position["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, thing in self.tracked.items():
            thing.load_state_dict(state[name])

    def _cut_metrics(self, state: dict | None) -> None:
        path = self.folder / "metrics.jsonl"
        if path.exists():
            with open(path, "r+b") as file:
                file.truncate(state["position"]["metrics_bytes"] if state else 0)

    def _begin_epoch(self) -> None:
        self._sums, self._steps_done, self._waited = torch.zeros((), device=self.device), 0, 0.0
        self._epoch_began = self._log_began = time.monotonic()
        self._waited_before_log = 0.0
        self.report = {}

    def _mean_over_ranks(self, values: torch.Tensor) -> list[float]:
        if self.world > 1:
            dist.all_reduce(values)
        return (values / self.world).tolist()

    def _log_step(self, figures: torch.Tensor) -> None:
        values = dict(zip(self._names, self._mean_over_ranks(figures.clone())))
        self._refuse_nonfinite(values)
        now = time.monotonic()
        wait = (self._waited - self._waited_before_log) / max(now - self._log_began, 1e-9)
        self._log_began, self._waited_before_log = now, self._waited
        if self.rank == 0:
            self.logbook.step(self.step, {**values, "lr": float(self.rates[self.step - 1]), "data_wait": wait})

    def _refuse_nonfinite(self, values: dict[str, float]) -> None:
        bad = [name for name, value in values.items() if not abs(value) < float("inf")]
        if bad:
            raise UserError(
                f"{', '.join(bad)} is not a number at step {self.step}; lower --base_lr or use --precision fp32. "
                f"The last finished epoch is kept in {self.folder}/checkpoints."
            )

    def _end_epoch(self) -> None:
        values = dict(zip(self._names, self._mean_over_ranks(self._sums / self._steps_done)))
        self._refuse_nonfinite(values)
        figures = {**values, **self.report, "seconds": time.monotonic() - self._epoch_began, "data_wait_seconds": self._waited}
        state = {name: thing.state_dict() for name, thing in self.tracked.items()}  # collective: every rank takes part
        if self.rank:
            return
        self.logbook.epoch(self.step, self.epoch, self.config.epochs, figures)
        state |= {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "position": {
                "step": self.step,
                "steps_per_epoch": self.steps_per_epoch,
                "inputs": self.inputs,
                "metrics_bytes": self.logbook.file.tell(),
            },
        }
        keep = (self.epoch + 1) % self.config.checkpoint_freq == 0
        save_checkpoint(self.folder / "checkpoints", self.step, state, keep_copy=keep)


def autocast_forward(forward, dtype: torch.dtype, device: torch.device):
    """`forward` under autocast; its floating-point results stay in the type that they were computed in."""

    def wrapped(*args, **kwargs):
        with autocast(dtype, device):
            return forward(*args, **kwargs)

    return wrapped


def launch(config_class: type[Config], main) -> None:
    """The last line of a script: parses the command line and runs `main(config)`."""
    with speaking_to_people():
        main(parse(config_class))
        leave_group()
