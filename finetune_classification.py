"""Fine-tuning: tells the class of an image (f_intra) or of a volume (f_intra and f_inter), from weights of any stage or none.

The loss is cross entropy in which all classes count alike. The weights of the epoch with the best area under the ROC curve on
the validation split are kept, and judged once on the test split. Labels: `labels.csv` (path,label[,subject][,split]) in the
data folder, a table named with --labels, or the folder [train/]<class>/ that a file lies in. Without splits, the subjects of
each class are dealt 70 : 10 : 20 by a hash of their names.

Reads    --image_path or --data_path with labels, weights of any stage and origin (--start_from)
Writes   weights/classification.pth; in the run's folder results.json, cases.csv, reliability.png
Run      python finetune_classification.py --image_path radiographs --start_from swav3D.pth
         python -m datasets.luna16 --volumes LUNA16 --candidates LUNA16/candidates_V2.csv --output training_data_luna16
         torchrun --nproc_per_node=2 finetune_classification.py --preset luna16 --start_from swav3D.pth
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from datasets.classification import Shown, targets_of
from datasets.classified import dealt, drawn_in_each_class, find_classified, missing_classes
from datasets.files import Item, subject_of
from datasets.subject_splits import splits_in_words
from engine.classification_report import Predictions, show, write_report
from engine.classification_scores import reliability, scores_of
from engine.config import FinetuneConfig
from engine.errors import UserError
from engine.finetuning import Best, judged_splits, refuse_empty, refuse_one_value, runs_of
from engine.pictures import reliability_diagrams
from engine.processes import autocast, of_first
from engine.run import launch, start
from losses.cross_entropy import class_weights, classification_loss
from losses.distributed import all_sum, gather_rows
from models.classifier import Classifier
from models.frozen import shown_to
from models.pretrained import Encoders, load_encoders, random_encoders
from models.starts import network_constants


@dataclass(kw_only=True)
class ClassificationConfig(FinetuneConfig):
    preset: Literal["default", "luna16"] = "default"  # luna16 = patches around nodule candidates, of `datasets.luna16`
    checkpoint_name: str = "classification.pth"  # the weight file that this script writes, inside pretrained_path
    # what it learns from, and is judged on: one of two folders
    data_path: str = ""  # folder of labelled volumes
    image_path: str = ""  # folder of labelled images
    labels: str = ""  # CSV table of the files that are taken ("" = labels.csv in the folder, or else folders of classes)
    columns: tuple[str, ...] = ()  # what it calls path, label, subject, split, if otherwise: path=file label=class
    labelled: int = 0  # subjects of each class in the training split to learn from, drawn by the seed (0 = all)
    # how files are shown
    target_shape: tuple[int, int, int] = (64, 128, 128)  # of volumes: slices, height, width that the network sees
    image_size: int = 224  # of images: height and width that the network sees
    image_min_scale: float = 0.5  # least share of an image that a crop shows in training
    flip: bool = False  # mirror images left to right; never where the side is a finding, as in chests
    image_store: Literal["auto", "on", "off"] = "auto"  # decode images once, to disk; auto = if half the memory holds them
    view_policy: Literal["compose", "one"] = "compose"  # several of the seven transforms of a volume in training, or one
    fit: Literal["", "shrink", "crop"] = ""  # of volumes to target_shape ("" = as the weights were trained, else shrink)
    normalise: Literal["", "robust", "none", "imagenet"] = ""  # intensities ("" = as the weights were trained, else robust)
    window: tuple[float, ...] = ()  # values of black and white, such as -1000 400 (none = percentiles of each file)
    # network
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"  # of random weights; files tell their own
    d_model: int = 640  # D of random weights, likewise
    tune: Literal["full", "frozen", "linear"] = "full"  # all weights; a head with a hidden layer, or a linear one, alone
    # optimisation
    balance: Literal["classes", "files"] = "classes"  # what counts alike in the loss
    epochs: int = 50  # passes over the data
    batch_size: int = 8  # files a process
    base_lr: float = 3e-4  # highest learning rate


def main(config: ClassificationConfig) -> Classifier:
    predictions: list[Predictions] = []
    for one in runs_of(config, "finetune_classification"):
        model, classes, of_seed = fine_tune(one)
        predictions += of_seed
    if predictions:
        of_first(lambda: report(Path(config.dump_path or "runs/finetune_classification"), predictions, classes))
    return model


def fine_tune(config: ClassificationConfig) -> tuple[Classifier, tuple[str, ...], list[Predictions]]:
    """One run, of one seed → the network with the weights that are kept, its classes, and what it says of each judged file."""
    if bool(config.data_path) == bool(config.image_path):
        raise UserError("Either volumes or images are classified; name one folder, with --data_path or with --image_path.")
    run = start(config, __file__)
    what = "volumes" if config.data_path else "images"
    files = run.find(find_classified, config.data_path or config.image_path, what == "volumes", config.labels, config.columns)
    data = dealt(files)
    files_of = {split: getattr(data, split) for split in ("train", "valid", "test")}
    refuse_empty(files_of, config.evaluate)
    if config.keep == "best" and not has_classes(data.valid):
        run.say("warning: the validation split has not two classes: the weights of the last epoch are kept, best or not.")
    run.say(*(f"warning: {sentence}" for sentence in missing_classes(data)))
    learned = drawn_in_each_class(data.train, config.labelled, config.seed)
    run.say(splits_in_words(learned, files_of, what.removesuffix("s")))
    encoders = start_weights(config, run, what)
    shown = as_trained(config, encoders, what)
    dealt_out = {"batch_size": config.batch_size, "workers": config.workers, "rank": run.rank, "world": run.world}
    loader = shown.learned_from(learned, seed=config.seed, min_scale=config.image_min_scale, **dealt_out)
    targets = np.array(data.targets(learned))
    weights = class_weights(torch.from_numpy(targets), len(data.classes)) if config.balance == "classes" else None
    constants = network_constants(encoders)
    model = Classifier(encoders, what, len(data.classes), config.tune)
    if what == "images" and not model.frozen:
        refuse_one_value(config.batch_size, shown.size, "picture")
    best = Best(model)
    pretrained = {"slice_encoder.": config.pretrained_rate, "volume_encoder.": config.pretrained_rate}
    network = run.prepare(model, loader, shares=pretrained if config.start_from else None, best=best)

    def standard():
        """Mean and deviation (D,) of the embeddings of all files that are learned from, over all ranks."""
        total = torch.zeros(2, model.embedding_dim, dtype=torch.float64, device=run.device)
        for batch in run.evaluate(shown.judged_on(learned, **dealt_out), what="embedding the training split once"):
            with autocast(run.dtype, run.device):
                embedded = model.embed(*shown.plain(batch, run.float_type)).double()
            total += torch.stack([embedded.sum(0), embedded.square().sum(0)])
        mean, square = all_sum(total) / len(learned)
        return mean, (square - mean.square()).clamp_min(0).sqrt()

    def judged(items, what=""):
        """(n, K) float64 probabilities of the classes for each item, in their order, on every rank."""
        rows = [torch.zeros(0, len(data.classes), dtype=run.float_type, device=run.device)]
        places = [torch.zeros(0, dtype=torch.int64, device=run.device)]
        for batch in run.evaluate(shown.judged_on(items, **dealt_out), what=what):
            rows.append(model(*shown.plain(batch, run.float_type)).to(run.float_type))
            places.append(batch["index"])
        logits, order = gather_rows(torch.cat(rows)), gather_rows(torch.cat(places)).argsort()
        return logits[order].double().softmax(1).cpu().numpy()

    if model.frozen:
        model.set_standard(*standard())
    for epoch in run.epochs():
        for batch in run.batches(loader):
            view = shown.augmented(batch, config.seed, config.view_policy, run.float_type, config.flip)
            run.show(partial(shown.looked_at, *view))
            run.update(classification_loss(network(*view), targets_of(batch, targets, run.device), weights))
        if has_classes(data.valid) and (epoch + 1 == config.epochs or (epoch + 1) % config.score_every == 0):
            area = scores_of(np.array(data.targets(data.valid)), judged(data.valid))["auc"](np.ones((1, len(data.valid))))
            run.log(valid_auc=float(area[0]))
            best.offer(float(area[0]), epoch)
    if config.keep == "best":
        best.restore()
    predictions = []
    for split in judged_splits(config.evaluate):
        items = getattr(data, split)
        told = judged(items, what=f"judging the {split} split")
        names, subjects = [item.name for item in items], [subject_of(item) for item in items]
        predictions.append(Predictions(config.seed, split, names, subjects, np.array(data.targets(items)), told))
    more = {"network": constants, "classes": list(data.classes), "shown": asdict(shown), "tune": config.tune}
    more |= {"best_epoch": best.kept_epoch(config.keep, config.epochs)}
    run.finish("classification", config.tune, model.state_dict(), more=more)
    return model, data.classes, predictions


def report(folder: Path, predictions: list[Predictions], classes: tuple[str, ...]) -> None:
    """Writes and shows the scores of all seeds, and draws how far their probabilities can be relied on."""
    show(write_report(folder, predictions, classes))
    panels = {}
    for split in dict.fromkeys(of.split for of in predictions):
        told = np.concatenate([of.probabilities for of in predictions if of.split == split])
        labels = np.concatenate([of.labels for of in predictions if of.split == split])
        panels[split] = reliability(told.argmax(1) == labels, told.max(1))
    reliability_diagrams(folder / "reliability.png", panels, "how often answers are right, by how sure they are")


def has_classes(items: list[Item]) -> bool:
    """Whether there are two classes to be told apart."""
    return len({item.label for item in items}) > 1


def start_weights(config: ClassificationConfig, run, what: str) -> Encoders:
    """The encoders that the classifier starts with."""
    if not config.start_from:
        run.say(f"no --start_from is named: the encoders ({config.arch}) start with random weights.")
        return random_encoders(config.arch, config.d_model, config.seed, volumes=what == "volumes")
    resnet = run.input(config.resnet_pretrained) if config.resnet_pretrained else ""
    encoders, said = load_encoders(run.input(config.start_from), config.sampling, resnet)
    run.say(*said)
    return encoders


def as_trained(config: ClassificationConfig, encoders: Encoders, what: str) -> Shown:
    """How files are shown: as in the training of the encoders, but for what a flag names."""
    trained_with = shown_to(encoders)
    normalise = config.normalise or trained_with.normalise
    if what == "images":
        return Shown(what, (config.image_size, config.image_size), normalise, window=config.window)
    fit = config.fit or trained_with.fit
    bound = encoders.volume_encoder.slices if encoders.volume_encoder else None
    if bound and (fit != "crop" or bound != config.target_shape[0]):
        raise UserError(
            f"The weights of {config.start_from} are bound to {bound} slices; set --fit crop --target_shape {bound} …"
        )
    return Shown(what, tuple(config.target_shape), normalise, fit, config.window)


if __name__ == "__main__":
    launch(ClassificationConfig, main)
