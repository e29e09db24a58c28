"""The Python API: one function for each command, with the options of its flags.

```python
from mobiledets_tf import api

api.convert_data(api.ConvertOptions(images="cards", output_dir="records"))
result = api.train(api.TrainOptions(architecture="edgetpu", train_data="records", model_dir="runs/train"))
report = api.export(
    api.ExportOptions(checkpoint_dir="runs/train", calibration_data="records", output_dir="runs/export")
)
```

A function takes one object of options, whose fields have the names, defaults and bounds of the command's
flags, and returns a plain result: an `Architecture`, a report as a dictionary, a dataclass. Commands do the
same work with the same options, so that both write the same files. Interrupted runs are resumed in the same
way.

All functions raise `mobiledets_tf.errors.InputError` (a `ValueError`) if the input or an option is invalid,
and `mobiledets_tf.errors.CheckFailed` (a `RuntimeError`) if a check or gate fails; the commands exit with 2
and 1 in these cases. Messages refer to an option by its flag, for example `--steps`. `KeyboardInterrupt`
means that a run was interrupted and its state saved, and `OSError` that the disk is full or a file cannot be
written.

The functions are defined here rather than in `mobiledets_tf` because `search`, `quickstart` and `doctor` are
names of its packages and modules. TensorFlow is loaded by the functions that need it, when they are
called. Keras models are made by `mobiledets_tf.models.MobileDet`; `tflite_export.detector.Detector` runs a
detector on single images.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from mobiledets_tf import architecture as architectures
from mobiledets_tf import latency
from mobiledets_tf.architecture import Architecture
from mobiledets_tf.data.options import ConvertOptions, DataOptions, SampleOptions
from mobiledets_tf.detection.options import TrainOptions
from mobiledets_tf.errors import CheckFailed, InputError
from mobiledets_tf.latency import LatencyModel
from mobiledets_tf.quickstart.options import QuickstartOptions
from mobiledets_tf.search.options import RankOptions, SearchOptions
from mobiledets_tf.search_space import get_space
from mobiledets_tf.weights.options import ImportOptions
from tflite_export.detector.options import DetectOptions
from tflite_export.devices.options import BenchmarkOptions, MeasureOptions
from tflite_export.export.options import CompileOptions, ExportOptions

if TYPE_CHECKING:  # These modules are slow to import.
    from mobiledets_tf.data.check import Checked
    from mobiledets_tf.detection.evaluate import Evaluation
    from mobiledets_tf.detection.training_run import Result
    from mobiledets_tf.doctor import Report
    from mobiledets_tf.weights.imported_weights import Account
    from tflite_export.detector.detect import Summary

__all__ = [
    "BenchmarkOptions",
    "CompileOptions",
    "ConvertOptions",
    "DataOptions",
    "DetectOptions",
    "ExportOptions",
    "ImportOptions",
    "MeasureOptions",
    "QuickstartOptions",
    "RankOptions",
    "SampleOptions",
    "SearchOptions",
    "TrainOptions",
    "benchmark",
    "check_data",
    "compile",
    "convert_data",
    "describe",
    "detect",
    "draw_sample",
    "evaluate",
    "examine",
    "export",
    "fit_latency",
    "fit_multiply_adds",
    "import_weights",
    "measure_latency",
    "quickstart",
    "rank",
    "search",
    "train",
]

# Wraps an iterable to show progress, for example with tqdm. Each function documents the other arguments.
Progress = Callable[..., Iterable]


def draw_sample(options: SampleOptions) -> None:
    """Writes the built-in sample set, digits on photos, as a data folder (`mobiledets-data --mode=sample`).

    Example:
      ```python
      from mobiledets_tf import api

      api.draw_sample(api.SampleOptions(output_dir="cards", num_train=200, num_val=40))
      ```

    Raises:
      InputError: the folder exists and is not empty.
    """
    from mobiledets_tf.data import sample

    sample.write_sample(
        options.output_dir, options.num_train, options.num_val, options.image_size, options.seed
    )


def check_data(options: DataOptions) -> "list[Checked]":
    """Checks all annotations and images of a data folder in any format (`mobiledets-data --mode=check`).

    Example:
      ```python
      from mobiledets_tf import api

      for split in api.check_data(api.DataOptions(images="cards")):
          print(split.summary(), *split.faults, *split.warnings, sep="\\n")
      ```

    Returns:
      Each split with its entries, faults and warnings. Faults are returned, not raised.

    Raises:
      InputError: there is nothing to read, or no format is recognised.
    """
    from mobiledets_tf.data import prepare

    return prepare.read(options)[1]


def convert_data(options: ConvertOptions) -> dict[str, Any]:
    """Checks images with boxes and converts them to TFRecord shards (`mobiledets-data --mode=convert`).

    Example:
      ```python
      from mobiledets_tf import api

      dataset = api.convert_data(api.ConvertOptions(images="cards", output_dir="records"))
      print(dataset["splits"]["train"]["images"])
      ```

    Returns:
      The content of `dataset.json`: categories, and the counts and shards of each split.

    Raises:
      InputError: there is nothing to read, or the output folder has splits with a different label map.
      CheckFailed: the data has faults; `check_data` returns them. Nothing is written.
    """
    from mobiledets_tf.data import convert, prepare

    _, checked = prepare.read(options)
    if faults := [fault for each in checked for fault in each.faults]:
        raise CheckFailed(f"{len(faults)} faults in {options.images!r}; first fault: {faults[0]}")
    return convert.convert(prepare.divided(checked, options), options.output_dir, options.num_shards)


def describe(
    architecture: str | os.PathLike | Architecture,
    num_classes: int = 90,
    image_size: int | tuple[int, int] = 320,
    depth_multiplier: float = 1.0,
) -> dict[str, Any]:
    """Counts the parameters and multiply-adds of a detector, layer by layer (`mobiledets-describe`).

    Example:
      ```python
      from mobiledets_tf import api

      figures = api.describe("edgetpu", num_classes=10)
      print(figures["params"], figures["madds"])
      ```

    Args:
      architecture: a published network (`cpu`, `edgetpu`, `dsp`, `gpu`), an architecture file, or an
        `Architecture`.
      num_classes: number of classes without the background.
      image_size: side of the input or (height, width), in pixels.
      depth_multiplier: factor for all widths.

    Returns:
      `params`, `trainable_params`, `madds`, `layers`, `feature_maps`, `anchors` and more; JSON-ready.

    Raises:
      InputError: the architecture is unknown, or a number is out of range.
    """
    if not isinstance(architecture, Architecture):
        architecture = architectures.load(os.fspath(architecture))
    return architectures.describe(architecture.scaled(depth_multiplier), num_classes, image_size)


def measure_latency(options: MeasureOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Measures networks of a space on a device (`mobiledets-latency --mode=measure`).

    Example:
      ```python
      from mobiledets_tf import api

      api.measure_latency(
          api.MeasureOptions(device="host_cpu", output="host.jsonl", image_size=160, networks=100)
      )
      ```

    Args:
      options: the device, the networks and the file of samples; an incomplete file is resumed.
      progress: called with the range of the missing networks, `desc` and `unit`; returns an iterable.

    Returns:
      The numbers of networks `measured` and `failed` in this call, its duration in `seconds`, and the
      `kind` and `device` of the times.

    Raises:
      InputError: the device is not available on this machine, its optional dependency is missing, the
        variant is unknown, or an existing file has samples with different settings.
    """
    from tflite_export.devices import measuring

    return measuring.run(options) if progress is None else measuring.run(options, progress)


def fit_latency(
    samples: str | os.PathLike | Sequence[str | os.PathLike],
    output: str | os.PathLike,
    band: tuple[float, float] | None = None,
) -> LatencyModel:
    """Fits a latency model to measured networks and writes it (`mobiledets-latency --mode=fit`).

    Example:
      ```python
      from mobiledets_tf import api

      model = api.fit_latency("host.jsonl", "latency_model.json")
      print(model.info["held_out"])
      ```

    Args:
      samples: one or more files written by `measure_latency`; if a network was measured several times, its
        lowest time is used.
      output: path of the model (.json); a plot (.png) is written beside it.
      band: range (low, high) in ms in which the held-out error is evaluated; by default a range around the
        published networks of the space.

    Raises:
      InputError: a file is damaged, the files belong to different devices or spaces, or there are too few
        networks.
    """
    from mobiledets_tf.latency import fit_report
    from mobiledets_tf.latency import samples as sample_files

    paths = [samples] if isinstance(samples, (str, os.PathLike)) else list(samples)
    flags = [f"--samples={os.fspath(path)}" for path in paths]
    flags += [] if band is None else [f"--band={band[0]:g},{band[1]:g}"]
    command = shlex.join(["mobiledets-latency", "--mode=fit", *flags, f"--output={os.fspath(output)}"])
    return fit_report.write(sample_files.load_all(paths), output, band, command)[0]


def fit_multiply_adds(
    output: str | os.PathLike,
    search_space: str = "ibn_fused_tucker",
    kernel_sizes: Sequence[int] = (3, 5),
    depth_multiplier: float = 1.0,
    image_size: int = 320,
    num_classes: int = 90,
) -> LatencyModel:
    """Writes the latency model that counts multiply-adds (`mobiledets-latency --mode=fit --device=madds`).

    Example:
      ```python
      from mobiledets_tf import api

      api.fit_multiply_adds("cost.json", num_classes=10)
      ```

    Args:
      output: path of the model (.json).
      search_space: one of `search_space.SPACES`.
      kernel_sizes: kernel sizes of the space.
      depth_multiplier: factor for all widths of the space.
      image_size: side of the square input, in pixels.
      num_classes: number of classes without the background.

    Raises:
      InputError: an option is unknown or out of range.
    """
    space = get_space(search_space, tuple(kernel_sizes), depth_multiplier)
    model = latency.madds_model(space, image_size, num_classes)
    latency.save(model, output)
    return model


def search(options: SearchOptions) -> Architecture:
    """Searches a space for a detector near a latency target (`mobiledets-search`).

    Writes `architecture.json`, a checkpoint of its weights, `search_report.json` and `search_report.png`
    into `model_dir`. An interrupted search is resumed, and a finished one returns its network.

    Example:
      ```python
      from mobiledets_tf import api

      network = api.search(
          api.SearchOptions(
              train_data="records",
              latency_model="cost.json",
              latency_target=1.5e9,
              model_dir="runs/search",
              preset="small",
          )
      )
      print(api.describe(network, num_classes=10)["madds"])
      ```

    Returns:
      The network in `architecture.json`; `origin.decisions` are its decisions in the space.

    Raises:
      InputError: an option is out of range, or data, head and latency model do not fit together, or the
        folder contains a search with different settings.
      CheckFailed: too many steps were dropped because a loss was not finite, or another worker has stopped.
      KeyboardInterrupt: the search was interrupted; its state has been saved.
    """
    options.check()
    models = options.latency_models()
    # TensorFlow is loaded from here on.
    from mobiledets_tf.compat import tf
    from mobiledets_tf.search import loop
    from tflite_export.devices import measuring

    settings = options.settings(models)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    times = measuring.finalist_times if options.measure_finalists else None
    return loop.run(settings, options.strategy(), times)


def rank(options: RankOptions) -> dict[str, Any]:
    """Compares how shared weights and stand-alone training rank networks (`mobiledets-rank`).

    Example:
      ```python
      from mobiledets_tf import api

      report = api.rank(
          api.RankOptions(search_dir="runs/search", latency_model="cost.json", model_dir="runs/rank")
      )
      print(report["kendall_tau"])
      ```

    Returns:
      The content of `rank_report.json`.

    Raises:
      InputError: the search, the latency model or the data cannot be used, or a training run rejected them.
      CheckFailed: a training run failed and printed the reason.
      KeyboardInterrupt: a training run was interrupted.
    """
    from mobiledets_tf.search import rank_run

    code, report = rank_run.run(options)
    _raise_for(code, "a training run of the comparison")
    return cast(dict[str, Any], report)


def train(options: TrainOptions) -> "Result":
    """Trains a detector with the Object Detection API and evaluates its checkpoints (`mobiledets-train`).

    Example:
      ```python
      from mobiledets_tf import api

      result = api.train(
          api.TrainOptions(
              architecture="edgetpu", train_data="records", model_dir="runs/train", steps=2000, seed=1
          )
      )
      print(result.step, result.best, result.metrics[-1]["AP"])
      ```

    Returns:
      The last step, the metrics of each evaluated checkpoint, and the best checkpoint.

    Raises:
      InputError: the data, the config, the weights or the folder are invalid or do not fit together.
      CheckFailed: a loss is not finite for the second time, or another worker has stopped.
      KeyboardInterrupt: the training was interrupted; its state has been saved.
    """
    options.check()
    # TensorFlow is loaded from here on.
    from mobiledets_tf.detection import training_run

    strategy = options.strategy()
    initial = None if options.init_from is None else options.initial_path
    return training_run.run(options.job(), options.run_options(), strategy, initial)


def evaluate(model_dir: str | os.PathLike, eval_data: str | os.PathLike | None = None) -> "list[Evaluation]":
    """Evaluates all checkpoints that a training has kept (`mobiledets-train --mode=eval`).

    Example:
      ```python
      from mobiledets_tf import api

      for evaluation in api.evaluate("runs/train", eval_data="records"):
          print(evaluation.metrics["step"], evaluation.metrics["AP"])
      ```

    Args:
      model_dir: folder of a training.
      eval_data: folder written by `mobiledets-data --mode=convert`, or a TFRecord pattern; default: the
        data of the training.

    Returns:
      For each checkpoint the COCO metrics, overall and per class, the confusions between classes, and the
      detections.

    Raises:
      InputError: the folder contains no training or no checkpoint, or the data does not fit its network.
      CheckFailed: some images cannot be decoded and were not evaluated.
    """
    from mobiledets_tf.detection import evaluate as evaluation
    from mobiledets_tf.detection import training_config

    data = None if eval_data is None else os.fspath(eval_data)
    config = training_config.eval_config(model_dir, data)
    return evaluation.evaluate_kept(model_dir, config)


def import_weights(options: ImportOptions) -> "Account":
    """Converts published or older weights to a checkpoint that train and export read (`mobiledets-import`).

    Example:
      ```python
      from mobiledets_tf import api

      account = api.import_weights(api.ImportOptions(weights="zoo:edgetpu", output_dir="published"))
      print("\\n".join(account.summary()))
      ```

    Returns:
      An account of what became of each tensor; it is the content of `import.json`.

    Raises:
      InputError: there are no weights, or they are damaged, fit no known network or cannot be downloaded.
    """
    wanted = options.wanted()
    # TensorFlow is loaded from here on.
    from mobiledets_tf.weights import importing, zoo

    path = zoo.local(options.weights, options.weights_cache)
    return importing.import_weights(path, options.output_dir, wanted, options.calibration_data)


def export(options: ExportOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Converts a checkpoint to a .tflite detector and evaluates the file (`mobiledets-export`).

    Writes `detector.tflite`, `labels.txt`, `report.json`, `report.html` and more into `output_dir`.

    Example:
      ```python
      from mobiledets_tf import api

      report = api.export(
          api.ExportOptions(
              checkpoint_dir="runs/train",
              calibration_data="records",
              eval_data="records",
              output_dir="runs/export",
              max_ap_drop=0.02,
          )
      )
      print(report["int8"]["AP"], report["file"]["bytes"])
      ```

    Args:
      options: what to export and how.
      progress: called with images, their number, a description and a stream or None; returns an iterable.

    Returns:
      The content of `report.json`.

    Raises:
      InputError: an option contradicts another one or the training, or the checkpoint or the data is
        missing or invalid.
      CheckFailed: a gate failed (the folder is still written), or an evaluation was incomplete.
    """
    settings = options.settings()
    from tflite_export.export import exporter

    more = {} if progress is None else {"progress": progress}
    return exporter.export(settings, options.output_dir, **more)


def detect(options: DetectOptions, progress: Progress | None = None) -> "Summary":
    """Runs a detector on images, a video or a camera and writes the results (`mobiledets-detect`).

    Writes annotated copies and `detections.json` (COCO results) into `output_dir`, and measures AP if
    annotations are given.

    Example:
      ```python
      from mobiledets_tf import api

      summary = api.detect(
          api.DetectOptions(
              model="runs/export/detector.tflite",
              images="cards/val",
              annotations="cards/instances_val.json",
              output_dir="runs/detections",
          )
      )
      print(summary.detections, summary.metrics["AP"], summary.unread)
      ```

    Args:
      options: the detector, the images and the settings.
      progress: called with the images and their number, or None if unknown; returns an iterable.

    Returns:
      Counts and metrics. `unread` lists images that cannot be read, and `fault` describes why a stream ended
      early; unlike the command, which exits with 1 in these cases, this function returns normally.
      `interrupted` says whether Ctrl-C left images to process; the same call resumes.

    Raises:
      InputError: the model, the images or the annotations cannot be read, or do not fit together.
      CheckFailed: the Edge TPU compiler rejects the file.
    """
    from tflite_export.detector import detect as detecting

    return detecting.run(options) if progress is None else detecting.run(options, progress)


def compile(options: CompileOptions) -> dict[str, Any]:
    """Checks a file for an accelerator and compiles it if the compiler is installed (`mobiledets-compile`).

    Example:
      ```python
      from mobiledets_tf import api

      verdict = api.compile(api.CompileOptions(model="runs/export/detector.tflite", target="edgetpu"))
      print(verdict["ready"], verdict["findings"])
      ```

    Returns:
      The verdict, JSON-ready: `ready`, `findings` (`op_index`, `op`, `tensor`, `block`, `reason`),
      `compiler` and more. A file that is not ready does not raise an error.

    Raises:
      InputError: the file cannot be read or is compiled already, the variant is unknown, or the labels do
        not fit.
    """
    eval_files = options.eval_files()
    from tflite_export.export import readiness

    return readiness.judge(
        options.model, options.target, options.folder, options.variant, options.labels, eval_files
    )


def benchmark(options: BenchmarkOptions, progress: Progress | None = None) -> dict[str, Any]:
    """Measures how long one inference of a .tflite file takes on a device (`mobiledets-benchmark`).

    Example:
      ```python
      from mobiledets_tf import api

      result = api.benchmark(api.BenchmarkOptions(model="runs/export/detector.tflite", threads=2))
      print(result["median_ms"], result["kind"])
      ```

    Args:
      options: the file and the device.
      progress: called with the blocks if these are timed; returns an iterable.

    Returns:
      `median_ms`, `kind` (measured, simulated, compiled or modelled), `spread` and more; JSON-ready.

    Raises:
      InputError: the file cannot be read, the device or variant is not available, or it does not fit the
        file.
      CheckFailed: the device cannot run the file.
    """
    from tflite_export.devices import benchmarking

    return benchmarking.run(options) if progress is None else benchmarking.run(options, progress)


def quickstart(options: QuickstartOptions) -> dict[str, Any]:
    """Converts data, makes a latency model, searches, trains and exports (`mobiledets-quickstart`).

    Each stage runs as a command in its own process and prints its progress. A second call resumes.

    Example:
      ```python
      from mobiledets_tf import api

      summary = api.quickstart(api.QuickstartOptions(work_dir="quickstart"))
      print(summary["int8_AP"], summary["page"])
      ```

    Returns:
      The results by name: AP of the float and the int8 detector, sizes, latency and the path of the page.

    Raises:
      InputError: the data folder does not exist, or a stage rejected its input.
      CheckFailed: a check failed in a stage, which printed the reason.
      KeyboardInterrupt: a stage was interrupted.
    """
    from mobiledets_tf.quickstart import pipeline

    code, summary = pipeline.run(options)
    _raise_for(code, "a stage of the quickstart")
    return cast(dict[str, Any], summary)


def examine() -> "Report":
    """Examines the software and the devices of this machine (`mobiledets-doctor`).

    Example:
      ```python
      from mobiledets_tf import api

      report = api.examine()
      print(report.ok, [device.name for device in report.devices])
      ```
    """
    from mobiledets_tf import doctor

    return doctor.examine()


def _raise_for(code: int, what: str) -> None:
    """Raises the error that the exit code of a command stands for."""
    if code == 0:
        return
    if code == 130:
        raise KeyboardInterrupt
    kind = InputError if code == 2 else CheckFailed
    raise kind(f"{what} ended with exit code {code}; its message is above")
