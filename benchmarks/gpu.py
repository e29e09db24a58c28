"""Measures training, its input and the search on a GPU, within a given time.

  python benchmarks/gpu.py --budget_s=480 --output=gpu.json

One call measures everything: training at batch 64 and 256 (320 pixels, float32 and mixed precision, which
is bfloat16 as in `mobiledets-train --mixed_precision`), steps of the search with sliced and with masked
execution, and the time to AP 0.3 on the sample set. Prints one JSON object; --output has what is measured so
far. Each part runs in a process of its own, which gets a share of the time that is left and is killed when
that is over: `state` is then `out of time`, and the rows that it measured before are kept.

Training rows: `step_images_per_s` with one batch that is on the GPU already, `images_per_s` with the input
pipeline, `waiting_share` the share of the time that the GPU waits for input, `input_images_per_s` of the
pipeline alone, `input_over_step` its ratio to the step's. Images are JPEGs of 640 pixels, about as large as
those of COCO. Search rows: each step trains another random network of `ibn_fused_tucker`; masked steps are
compiled by XLA, which `mobiledets-search` does only on a TPU.

--tiny runs all parts with a small network on a CPU, without XLA, to see that the script works. Without it,
and without a GPU, the script says so and exits with 2; it exits with 1 if a part failed.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import steps

from mobiledets_tf import files

# A row's name and its figures; a part may yield a row again with more figures.
Rows = Iterator[tuple[str, dict[str, Any]]]
# Calls between two waits for the GPU, which works behind Python's back.
_ROUND = 4
# A part that would get less is not started.
_LEAST_S = 2.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the networks, batches and images that are measured.

    Attributes:
      tiny: whether a small network and a small space are used.
      batch_sizes, image_size: batch sizes and side of the input in training.
      images, drawn_size: number and side of the images that the input pipeline reads.
      window_s: duration of one measurement.
      search_batch, search_image_size, search_depth: batch size, side of the input and depth multiplier of
        the search.
      sample: numbers of training and evaluation images for the time to `target_ap`.
      sample_steps, sample_batch, sample_image_size, sample_depth: settings of that training; they are those
        of the comparison with `edgetpu` in docs/measurements.md.
    """

    tiny: bool = False
    batch_sizes: tuple[int, ...] = (64, 256)
    image_size: int = 320
    images: int = 512
    drawn_size: int = 640
    window_s: float = 6.0
    search_batch: int = 16
    search_image_size: int = 128
    search_depth: float = 0.35
    target_ap: float = 0.3
    sample: tuple[int, int] = (1000, 200)
    sample_steps: int = 1400
    sample_batch: int = 16
    sample_image_size: int = 160
    sample_depth: float = 0.35


FULL = Sizes()
TINY = Sizes(
    tiny=True,
    batch_sizes=(2,),
    image_size=96,
    images=8,
    drawn_size=96,
    window_s=0.5,
    search_batch=2,
    search_image_size=96,
    search_depth=0.25,
    target_ap=0.0,
    sample=(8, 4),
    sample_steps=5,
    sample_batch=2,
    sample_image_size=96,
    sample_depth=1.0,
)


# --- parts, each in a process of its own ----------------------------------------------------


def _device(sizes: Sizes, work: Path) -> Rows:
    from mobiledets_tf.compat import tf

    found = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(found[0]) if found else {}
    yield (
        "device",
        {
            "gpus": len(found),
            "name": details.get("device_name"),
            "compute_capability": details.get("compute_capability"),
            "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
            "tensorflow": tf.__version__,
            "cuda": tf.sysconfig.get_build_info().get("cuda_version"),
            "cores": len(os.sched_getaffinity(0)),
        },
    )


def _data(sizes: Sizes, work: Path) -> Rows:
    start = time.perf_counter()
    steps.sample(work / "input", sizes.images, sizes.drawn_size)
    steps.sample(work / "sample", sizes.sample[0], sizes.sample_image_size, sizes.sample[1])
    yield "drawn", {"seconds": time.perf_counter() - start}


def _training(sizes: Sizes, work: Path, mixed_precision: bool) -> Rows:
    from mobiledets_tf.compat import tf

    for batch_size in sizes.batch_sizes:
        row = f"batch {batch_size}"
        try:
            for figures in _training_at(sizes, work, batch_size, mixed_precision):
                yield row, figures
        except tf.errors.ResourceExhaustedError:
            yield row, {"failed": "out of memory"}


def _training_at(
    sizes: Sizes, work: Path, batch_size: int, mixed_precision: bool
) -> Iterator[dict[str, float | None]]:
    from mobiledets_tf.compat import keras

    keras.utils.set_random_seed(0)
    config = steps.config(
        str(work / "input" / "records"),
        architecture=_architecture(sizes, work),
        image_size=(sizes.image_size, sizes.image_size),
        batch_size=batch_size,
        random_crop=True,
        mixed_precision=mixed_precision,
    )
    model = steps.model(config)
    batches = steps.batches(config, model)
    fixed = _on_device(next(batches))
    input_s = _seconds(sizes.window_s, lambda: next(batches))
    yield {"input_images_per_s": batch_size / input_s}
    step = steps.training_step(model, config)
    start = time.perf_counter()
    loss = float(step(*fixed))
    yield {"first_step_s": time.perf_counter() - start, "first_loss": loss}
    step_s = _seconds(sizes.window_s, lambda: step(*fixed), float)
    yield {
        "step_images_per_s": batch_size / step_s,
        "input_over_step": step_s / input_s,
        "peak_gpu_mib": _peak_gpu_mib(),
    }
    fed_s = _seconds(sizes.window_s, lambda: step(*next(batches)), float)
    yield {"images_per_s": batch_size / fed_s, "waiting_share": max(0.0, 1.0 - step_s / fed_s)}


def _architecture(sizes: Sizes, work: Path) -> str:
    """Returns the network to train: `edgetpu`, or a file with the smallest network of the tiny space."""
    if not sizes.tiny:
        return "edgetpu"
    from mobiledets_tf import architecture, search_space

    space = _tiny_space()
    path = work / "tiny.json"
    architecture.save(search_space.decode(space, np.zeros(len(space.decisions), np.int32)), path)
    return str(path)


def _tiny_space():
    """Returns a space with one layer in each block."""
    from mobiledets_tf import search_space

    whole = search_space.get_space("ibn", kernel_sizes=(3,), depth_multiplier=TINY.search_depth)
    blocks = (dataclasses.replace(block, layers=block.layers[:1]) for block in whole.blocks)
    return dataclasses.replace(whole, blocks=tuple(blocks))


def _on_device(batch):
    """Copies the numbers of a batch to the GPU; without one they stay where they are."""
    from mobiledets_tf.compat import tf

    if not tf.config.list_physical_devices("GPU"):
        return batch
    with tf.device("GPU:0"):
        return tf.nest.map_structure(lambda t: t if t.dtype == tf.string else tf.identity(t), batch)


def _seconds(
    window_s: float, call: Callable[[], Any], wait: Callable[[Any], Any] = lambda value: value
) -> float:
    """Returns the mean duration of a call over a window, in seconds.

    Args:
      window_s: minimum duration of the window.
      call: the function to time.
      wait: blocks until the result of a call is available.
    """
    for _ in range(2):
        wait(call())
    calls, start = 0, time.perf_counter()
    while True:
        for _ in range(_ROUND):
            last = call()
        wait(last)
        calls += _ROUND
        passed = time.perf_counter() - start
        if passed >= window_s:
            return passed / calls


def _peak_gpu_mib() -> float | None:
    from mobiledets_tf.compat import tf

    if not tf.config.list_physical_devices("GPU"):
        return None
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


def _search(sizes: Sizes, work: Path, execution: str) -> Rows:
    from mobiledets_tf import search_space
    from mobiledets_tf.compat import tf
    from mobiledets_tf.search.step import build_step, set_seed

    set_seed(0)
    side, classes = sizes.search_image_size, 10
    space = _tiny_space()
    if not sizes.tiny:
        space = search_space.get_space("ibn_fused_tucker", depth_multiplier=sizes.search_depth)
    shared, _ = build_step(space, (side, side), classes, execution)
    batch = steps.noise(sizes.search_batch, side, classes)
    rng = np.random.default_rng(0)
    # On a CPU XLA compiles even the small network for a minute; tests/search/test_xla.py covers it.
    xla = execution == "masked" and not sizes.tiny
    masked = tf.function(shared._train_replica, autograph=False, jit_compile=xla)

    def step() -> float:
        decisions = search_space.sample(space, rng)
        if execution == "sliced":
            return shared.train([batch], [decisions], 0.01)[0]["total_loss"]
        rate = tf.constant(0.01)
        return float(masked(batch.images, batch.labels, tf.constant(decisions), rate)["total_loss"])

    start = time.perf_counter()
    yield "step", {"xla": xla, "first_loss": step(), "first_step_s": time.perf_counter() - start}
    step_s = _seconds(sizes.window_s, step)
    yield (
        "step",
        {
            "steps_per_s": 1.0 / step_s,
            "images_per_s": sizes.search_batch / step_s,
            "peak_gpu_mib": _peak_gpu_mib(),
        },
    )


def _time_to_ap(sizes: Sizes, work: Path) -> Rows:
    from mobiledets_tf.detection import best, model_dir, pipeline_config, train, training_config

    folder = str(work / "time_to_ap")
    overrides = pipeline_config.Overrides(
        architecture=_architecture(sizes, work),
        image_size=(sizes.sample_image_size, sizes.sample_image_size),
        depth_multiplier=sizes.sample_depth,
        batch_size=sizes.sample_batch,
        steps=sizes.sample_steps,
        learning_rate=0.1,
    )
    job = training_config.Job(folder, train_data=str(work / "sample" / "records"), overrides=overrides)
    model_dir.start(folder, *training_config.train_config(job), seed=0)
    watch, evaluations, start = best.Watch(folder), [], time.perf_counter()

    def reached(checkpoint: str) -> bool:
        before = time.perf_counter()
        watch(checkpoint)
        now = time.perf_counter()
        figures = {"seconds": now - start, "AP": watch.last.metrics["AP"], "evaluation_s": now - before}
        evaluations.append({"step": watch.last.metrics["step"]} | figures)
        _emit(f"step {evaluations[-1]['step']}", figures)
        return figures["AP"] >= sizes.target_ap

    train.train(folder, train.Options(cache=True, on_checkpoint=reached))
    last = evaluations[-1]
    yield (
        "target",
        {"AP": sizes.target_ap, "reached": last["AP"] >= sizes.target_ap}
        | {key: last[key] for key in ("seconds", "step")},
    )


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Attributes:
      weight: its share of the time, beside the weights of the others.
      measure: yields its rows, given the sizes and a folder that all parts share.
    """

    weight: float
    measure: Callable[[Sizes, Path], Rows]


# The first parts may take long on a machine that loads TensorFlow for the first time; what a part does not
# need is left to those after it.
PARTS = {
    "device": Part(60, _device),
    "data": Part(40, _data),
    "train_float32": Part(95, lambda sizes, work: _training(sizes, work, mixed_precision=False)),
    "train_mixed": Part(95, lambda sizes, work: _training(sizes, work, mixed_precision=True)),
    "search_sliced": Part(60, lambda sizes, work: _search(sizes, work, "sliced")),
    "search_masked_xla": Part(80, lambda sizes, work: _search(sizes, work, "masked")),
    "time_to_ap": Part(100, _time_to_ap),
}


def _emit(row: str, figures: dict[str, Any]) -> None:
    print(json.dumps({"row": row} | figures, allow_nan=False), flush=True)


# --- the parts one after the other ----------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget_s", type=float, default=480.0, help="seconds that everything may take")
    parser.add_argument("--output", help="JSON file of the result so far")
    parser.add_argument("--tiny", action="store_true", help="a small network on a CPU")
    parser.add_argument("--part", choices=PARTS, help="internal: what this process measures")
    parser.add_argument("--work_dir", type=Path, help="internal: folder that the parts share")
    options = parser.parse_args()
    if options.part:
        for row, figures in PARTS[options.part].measure(TINY if options.tiny else FULL, options.work_dir):
            _emit(row, figures)
        return 0
    if not (math.isfinite(options.budget_s) and options.budget_s > 0):
        parser.error(f"--budget_s={options.budget_s}: allowed are numbers above 0")
    if options.tiny:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(options, Path(folder))
    if result is None:
        print(
            "TensorFlow sees no GPU: mobiledets-doctor says what is missing, --tiny runs on a CPU",
            file=sys.stderr,
        )
        return 2
    print(json.dumps(result))
    return int(any(part["state"].startswith("failed") for part in result["parts"].values()))


def _measure(options: argparse.Namespace, work: Path) -> dict[str, Any] | None:
    """Measures all parts within the budget; returns None if there is no GPU where one is needed."""
    start, left = time.monotonic(), list(PARTS)
    sizes = dataclasses.asdict(TINY if options.tiny else FULL)
    result = {"budget_s": options.budget_s, "sizes": sizes, "parts": {}}

    def keep() -> None:
        result["seconds"] = time.monotonic() - start
        if options.output is not None:
            files.write_json(options.output, result)

    while left:
        remaining = options.budget_s - (time.monotonic() - start)
        seconds = share(remaining, [PARTS[name].weight for name in left])
        name = left.pop(0)
        part = result["parts"][name] = {"state": "out of time", "seconds": 0.0, "rows": {}}
        if seconds >= _LEAST_S:
            command = [sys.executable, __file__, f"--part={name}", f"--work_dir={work}"]
            _run([*command, "--tiny"] if options.tiny else command, seconds, part, keep)
        keep()
        device = part["rows"].get("device")
        if device is not None and not device["gpus"] and not options.tiny:
            return None
    return result


def share(remaining_s: float, weights: list[float]) -> float:
    """Returns the seconds of the first of several parts, by weight, if so many are left for all of them."""
    return remaining_s * weights[0] / sum(weights)


def _run(command: list[str], seconds: float, part: dict[str, Any], keep: Callable[[], None]) -> None:
    """Runs a part as a process that is killed after some seconds.

    Args:
      command: the process; each of its rows is a line of its standard output.
      seconds: the time that it has.
      part: the part's entry in the result, which is filled.
      keep: called after each row.
    """
    start = time.monotonic()
    # A session of its own, so that whatever a part starts ends with it.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    clock = threading.Timer(seconds, _kill, [process])
    clock.start()
    try:
        for line in process.stdout:
            # Commands and libraries may print as well.
            if line.startswith('{"row"'):
                figures = json.loads(line)
                part["rows"].setdefault(figures.pop("row"), {}).update(figures)
                print(line, end="", file=sys.stderr, flush=True)
                keep()
        code = process.wait()
    finally:
        clock.cancel()
        _kill(process)
    passed = time.monotonic() - start
    late = "out of time" if passed >= seconds else f"failed with exit code {code}"
    part |= {"state": late if code else "done", "seconds": passed}


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
