"""Run of a rank comparison: draws networks, measures them with shared weights, trains each of them alone.

A repeated run with the same options resumes an interrupted one.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mobiledets_tf import commands, latency
from mobiledets_tf.data import classes, records
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import write_artefact
from mobiledets_tf.folder_lock import locked
from mobiledets_tf.search import rank, rank_report
from mobiledets_tf.search.options import RankOptions
from mobiledets_tf.search.settings import keep
from mobiledets_tf.search_space import SearchSpace

REPORT, PICTURE, SETTINGS = "rank_report.json", "rank_report.png", "settings.json"


# Trains the network of an architecture file and writes it to a folder. Further arguments: the search's
# settings, the training data and a seed. Returns an exit code.
Train = Callable[[Path, Path, dict[str, Any], str, int], int]


def in_own_process(options: RankOptions) -> Train:
    """Returns a function that trains a network by running `mobiledets-train` in its own process."""

    def train(file: Path, folder: Path, settings: dict[str, Any], train_data: str, seed: int) -> int:
        flags = (
            f"--architecture={file}",
            f"--train_data={train_data}",
            f"--model_dir={folder}",
            f"--image_size={settings['image_size'][0]}",
            f"--steps={options.steps}",
            f"--batch_size={options.batch_size}",
            f"--learning_rate={options.learning_rate}",
            "--norandom_flip",
            "--norandom_crop",
            f"--seed={seed}",
        )
        return commands.call(commands.line("train", flags))

    return train


def run(options: RankOptions, train: Train | None = None) -> tuple[int, dict[str, Any] | None]:
    """Compares how shared weights and stand-alone training rank networks; writes the report and its figure.

    Args:
      options: the search to test, and how to draw and train the networks.
      train: trains a network; by default `in_own_process`.

    Returns:
      (0, the report), or the exit code of a training that failed or was interrupted, and None.

    Raises:
      InputError: the search, the latency model or the data cannot be used, or the folder contains another
        comparison.
    """
    settings, space = rank.read_search(options.search_dir)
    folder = Path(options.model_dir)
    _start(folder, options, settings, space)
    networks, shared = rank.read_start(folder, space, options.networks)
    with locked(folder):
        code, alone = _train_alone(folder, options, settings, train or in_own_process(options))
    if code:
        return code, None
    about = {
        "metric": settings["metric"],
        "alone_metric": options.alone,
        "draw": options.draw,
        "steps": options.steps,
        "seed": options.seed,
    }
    summary = rank_report.report(networks, shared, alone, rank_report.sizes(settings, space, networks), about)
    write_artefact(folder / REPORT, summary)
    rank_report.draw(folder / PICTURE, summary)
    return 0, summary


def _start(folder: Path, options: RankOptions, settings: dict[str, Any], space: SearchSpace) -> None:
    """Draws networks and measures them with the shared weights, unless the folder already contains them."""
    band, train_data = None, options.train_data or settings["train_data"]
    if options.latency_model is not None:
        band = rank.search_band(settings, space, latency.load(options.latency_model))
    names = ("draw", "networks", "seeds", "steps", "batch_size", "learning_rate", "seed")
    kept = {name: getattr(options, name) for name in names} | {"train_data": train_data}
    # The settings are written last, so a folder that has them also has the networks and their qualities.
    file = folder / SETTINGS
    if not file.exists():
        if band is None:
            raise InputError("--latency_model is required to draw networks from the search's latency band")
        _check_data(settings["train_data"], train_data)
        policies = rank.policies(settings, band, options.draw)
        networks = rank.sample_networks(band, policies, options.networks, options.seed)
        shared = rank.shared_quality(options.search_dir, settings, space, networks)
        rank.write_start(folder, space, networks, shared)
    keep(file, {"search": settings} | kept, "comparison")


def _check_data(searched: str, trained: str) -> None:
    """Checks, before anything is written, that the data exist and have the classes of the search."""
    ours, theirs = (records.label_map_path(records.resolve(data, "train")) for data in (searched, trained))
    classes.require_same(
        records.read_label_map(theirs), repr(theirs), records.read_label_map(ours), repr(ours)
    )
    if os.path.isdir(trained):
        records.resolve(trained, "val")


def _train_alone(
    folder: Path, options: RankOptions, settings: dict[str, Any], train: Train
) -> tuple[int, np.ndarray]:
    """Trains each network alone with each seed, except where that is already done.

    Returns:
      An exit code and the qualities, float64 [networks, seeds], which are complete if the code is 0.
    """
    alone = np.zeros((options.networks, options.seeds))
    for number, index in np.ndindex(*alone.shape):
        file, seed = rank.network_file(folder, number), options.seed + index
        here = folder / f"{file.stem}_seed{seed}"
        quality = rank.alone_quality(here, options.steps, options.alone)
        if quality is None:
            print(f"training network {number + 1} of {options.networks}, seed {seed}", flush=True)
            code = train(file, here, settings, options.train_data or settings["train_data"], seed)
            if code:
                return code, alone
            quality = rank.alone_quality(here, options.steps, options.alone)
        if quality is None:
            raise InputError(f"the training in {str(here)!r} has no evaluation at step {options.steps}")
        alone[number, index] = quality
    return 0, alone
