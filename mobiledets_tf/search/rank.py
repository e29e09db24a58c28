"""Rank comparison: whether shared weights rank networks of the band as stand-alone training does."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mobiledets_tf import architecture as architectures
from mobiledets_tf.data import records
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_artefact, write_json
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.search import proposals
from mobiledets_tf.search.band import Band
from mobiledets_tf.search.known import known_networks
from mobiledets_tf.search.reward import QUALITIES
from mobiledets_tf.search.settings import ALGORITHMS, REGIONS, Objective, fingerprint
from mobiledets_tf.search_space import SearchSpace, check_decisions, decode, stored_space
from mobiledets_tf.weights import trained_folder

DRAWS = ("region", "space")
ALONE = ("AP", "AP50", "loss")
SHARED, SHARED_VERSION = "shared_quality.json", 1
# Maximum number of rounds of drawing; mutations of a known network repeat, so one round may not suffice.
_ROUNDS = 50


def _whole(low: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= low


def _is_number(value: Any) -> bool:
    # A comparison is used because math.isfinite fails for an integer of hundreds of digits.
    return type(value) in (int, float) and abs(value) < 1e300


def _is_device(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), str) for name in ("device", "latency_model"))
        and all(_is_number(value.get(name)) for name in ("latency_target", "latency_band"))
    )


# Settings of a search that a comparison reads -> function that returns whether a value is usable.
_USABLE: dict[str, Callable[[Any], bool]] = {
    "image_size": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_whole(1), value)),
    "num_classes": _whole(1),
    "seed": _whole(0),
    "batch_size": _whole(1),
    "rl_batch_multiplier": _whole(1),
    "quality_images": _whole(0),
    "mutation_rate": lambda value: _is_number(value) and 0 < value <= 1,
    "train_data": lambda value: isinstance(value, str),
    "published": lambda value: isinstance(value, bool),
    "candidates": lambda value: isinstance(value, list),
    "execution": ("sliced", "masked").__contains__,
    "metric": QUALITIES.__contains__,
    "region": REGIONS.__contains__,
    "algorithm": ALGORITHMS.__contains__,
    "devices": lambda value: isinstance(value, list) and len(value) > 0 and _is_device(value[0]),
}


def read_search(folder: str | os.PathLike) -> tuple[dict[str, Any], SearchSpace]:
    """Reads and checks the settings of a search.

    Args:
      folder: folder of the search.

    Returns:
      (settings, search space).

    Raises:
      InputError: the folder contains no search, or the search has no saved weights, comes from another
        version or space, or uses images that are not square.
    """
    from mobiledets_tf.search.loop import SETTINGS

    _saved_step(folder)
    settings = read_artefact(
        Path(folder) / SETTINGS, "search settings", trained_folder.SETTINGS_VERSION, absent=1
    )
    where = f"settings of the search in {str(folder)!r}"
    try:
        space = stored_space(settings["search_space"])
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} are missing or malformed ({error})") from error
    for name, usable in _USABLE.items():
        if name not in settings:
            raise InputError(f"{where} lack {name!r}: run the search again with this version")
        if not usable(settings[name]):
            raise InputError(f"{where} are malformed: {name} is {str(settings[name])[:80]}")
    height, width = settings["image_size"]
    if height != width:
        raise InputError(f"the search uses {height}x{width} images; allowed: square images")
    return settings, space


def _saved_step(folder: str | os.PathLike) -> int:
    """Returns the step of a search's last saved weights."""
    from mobiledets_tf.search import state

    saved = state.load(folder)
    if saved is None:
        raise InputError(f"{str(folder)!r} contains no search with saved weights")
    if not _whole(0)(saved.get("step")):
        raise InputError(f"{str(Path(folder) / state.STATE)!r}: step is {str(saved.get('step'))[:80]}")
    return saved["step"]


def search_band(settings: dict[str, Any], space: SearchSpace, model: LatencyModel) -> Band:
    """Returns the latency band of the search's first device.

    Args:
      settings, space: settings and search space returned by `read_search`.
      model: the latency model that the search used for this device.

    Raises:
      InputError: the latency model is not the one used by the search (the message shows both
        fingerprints), or the band is empty.
    """
    device = settings["devices"][0]
    actual, expected = fingerprint(model), device["latency_model"]
    if actual != expected:
        raise InputError(
            f"the latency model of {model.title} has fingerprint {actual!r}; the search used "
            f"{expected!r} for its first device, {device['device']!r}"
        )
    model.require_space(space)
    return Objective(model, device["latency_target"], band=device["latency_band"]).networks


def policies(settings: dict[str, Any], band: Band, draw: str) -> list[proposals.Probabilities]:
    """Returns the distributions that networks are drawn from; each is used with equal probability.

    Args:
      settings: settings returned by `read_search`.
      band: latency band of the search.
      draw: `region` draws mutations of all known networks, even if the search compared them first and
        then started from the best one only; it draws from the whole space if the search did not start from
        known networks. `space` always draws from the whole space.

    Raises:
      InputError: a candidate in the settings is malformed.
    """
    space = band.latency.space
    if draw == "space" or settings["region"] == "space":
        return [proposals.even(space)]
    candidates = [
        architectures.from_dict(data, f"candidate {number} of the search")
        for number, data in enumerate(settings["candidates"], 1)
    ]
    known = known_networks(band, candidates, settings["published"])
    if not known:
        return [proposals.even(space)]
    found = [proposals.around(space, one.decisions, settings["mutation_rate"]) for one in known]
    # Evolution mutates one known network at a time; the other algorithms start from the mean of all.
    return found if settings["algorithm"] == "evolution" else [proposals.mixed(found)]


def sample_networks(
    band: Band, mixture: Sequence[proposals.Probabilities], networks: int, seed: int
) -> np.ndarray:
    """Draws different networks of the band, each from a random policy of a mixture.

    Args:
      band: latency band of the search.
      mixture: distributions returned by `policies`.
      networks: number of networks to draw.
      seed: seed of the draws.

    Returns:
      int32 [networks, decisions].

    Raises:
      InputError: too few different networks inside the band were found.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_ROUNDS):
        for number in rng.integers(len(mixture), size=networks - len(found)):
            found.setdefault(tuple(band.sample(mixture[number], rng, 1)[0].tolist()))
        if len(found) == networks:
            return np.array(list(found), np.int32)
    raise InputError(
        f"only {len(found)} different networks were found in the latency band, wanted: {networks}; "
        "lower --networks, or draw from the whole space"
    )


def shared_quality(
    folder: str | os.PathLike, settings: dict[str, Any], space: SearchSpace, networks: np.ndarray
) -> np.ndarray:
    """Measures the quality of networks with the shared weights in the same way as the search.

    Args:
      folder: folder of the search.
      settings, space: settings and search space returned by `read_search`.
      networks: int32 [networks, decisions].

    Returns:
      Quality on the images that steered the search, float64 [networks, batches]; higher is better.
      Batches without boxes are left out. Minus infinity where a loss is not finite.

    Raises:
      InputError: weights or images of the search cannot be read, or no image has a box.
    """
    from mobiledets_tf.search import input_pipeline, state
    from mobiledets_tf.search.step import build_step, set_seed

    set_seed(settings["seed"])
    step, model_config = build_step(
        space, tuple(settings["image_size"]), settings["num_classes"], settings["execution"]
    )
    state.restore(folder, state.checkpoint(step.supernet), _saved_step(folder))
    files = records.resolve(settings["train_data"], "train")
    large = settings["batch_size"] * settings["rl_batch_multiplier"]
    split = input_pipeline.Split(files)
    stream = input_pipeline.Stream(
        split,
        records.label_map_path(files),
        model_config,
        step.preprocess,
        input_pipeline.fixed_batch_size(split.images["steer"], large),
        "steer",
        settings["seed"],
    )
    batches = stream.fixed(settings["quality_images"] or 4 * large)
    bar = tqdm(networks, desc="shared weights", unit="network")
    values = np.concatenate([step.measure(batches, network[None], settings["metric"]) for network in bar])
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.size:
        raise InputError(f"no held-out image of {settings['train_data']!r} has a box: nothing to compare")
    return values


def network_file(folder: str | os.PathLike, number: int) -> Path:
    """Returns the path of the architecture file of a network in the comparison."""
    return Path(folder) / f"network{number:03d}.json"


def write_start(
    folder: str | os.PathLike, space: SearchSpace, networks: np.ndarray, shared: np.ndarray
) -> None:
    """Writes the architecture files of networks and their qualities with shared weights.

    Args:
      folder: folder of the comparison.
      space: search space of the networks.
      networks: int32 [networks, decisions].
      shared: quality with shared weights, float64 [networks, batches].
    """
    for number, network in enumerate(networks):
        path = network_file(folder, number)
        architectures.save(decode(space, network, path.stem), path)
    values = [[float(value) if np.isfinite(value) else None for value in row] for row in shared]
    write_json(Path(folder) / SHARED, {"schema_version": SHARED_VERSION, "values": values})


def read_start(folder: str | os.PathLike, space: SearchSpace, networks: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the files that `write_start` wrote.

    Args:
      folder: folder of the comparison.
      space: search space of the networks.
      networks: number of networks.

    Returns:
      (networks int32 [networks, decisions], their shared-weights quality float64 [networks, batches]).

    Raises:
      InputError: a file is missing or damaged, or a network does not belong to the space.
    """
    found = []
    for number in range(networks):
        path = network_file(folder, number)
        origin = architectures.load(path).origin
        if origin is None or origin.space_hash != space.hash:
            raise InputError(f"architecture file {str(path)!r} is not a network of the search's space")
        check_decisions(space, origin.decisions)
        found.append(origin.decisions)
    path = Path(folder) / SHARED
    content = read_artefact(path, "shared qualities", SHARED_VERSION)
    try:
        values = np.array(content["values"], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"shared qualities {str(path)!r} are malformed ({error})") from error
    if values.ndim != 2 or len(values) != networks or not values.size:
        raise InputError(f"shared qualities {str(path)!r} have shape {values.shape}; networks: {networks}")
    # JSON has no infinity: null stands for a loss that was not finite.
    return np.array(found, np.int32), np.where(np.isnan(values), -np.inf, values)


def alone_quality(folder: str | os.PathLike, steps: int, metric: str) -> float | None:
    """Reads the quality of a network after stand-alone training; higher is better.

    Args:
      folder: folder of the training.
      steps: number of steps of the whole training.
      metric: one of `ALONE`; `loss` is minus the sum of the class and the box loss, as in a search.

    Returns:
      The quality; None if the training has not been evaluated at its last step.

    Raises:
      InputError: `eval_metrics.json` is damaged or lacks the metric.
    """
    from mobiledets_tf.detection import evaluate

    rows = [row for row in evaluate.read_metrics(folder) if row["step"] == steps]
    if not rows:
        return None
    names = ("classification_loss", "localization_loss") if metric == "loss" else (metric,)
    for name in names:
        if not _is_number(rows[-1].get(name)):
            path = str(Path(folder) / evaluate.METRICS_FILE)
            raise InputError(f"metrics file {path!r}: {name} at step {steps} is {rows[-1].get(name)!r}")
    total = float(sum(rows[-1][name] for name in names))
    return -total if metric == "loss" else total
