"""`mobiledets-quickstart`: searches, trains and exports an int8 detector from images with boxes."""

import sys
from pathlib import Path

from absl import flags

from mobiledets_tf import architecture
from mobiledets_tf.architecture import drawing
from mobiledets_tf.cli import app
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_json, write_artefact
from mobiledets_tf.quickstart import quickstart_page, runner
from mobiledets_tf.quickstart.runner import Stage
from tflite_export.devices import TIMING

FLAGS = flags.FlagValues()

flags.DEFINE_string("work_dir", "quickstart", "Folder for everything that is written.", flag_values=FLAGS)
flags.DEFINE_string("data", None, "Data folder (COCO format); default: built-in sample.", flag_values=FLAGS)
flags.DEFINE_enum(
    "device", "madds", ["madds", *TIMING], "What the network shall be fast on: multiply-adds, or a device "
    "whose latency model is made first, of networks measured, simulated or estimated here.",
    flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_integer("seed", 0, "Of data, search and training.", 0, 2**31 - 1, flag_values=FLAGS)

DESCRIPTION = """
Runs data, latency, search, train and export one after the other; called again, it goes on.
Ends with WORK_DIR/index.html, a page that shows everything, and prints its figures.

  mobiledets-quickstart --work_dir=quickstart
  mobiledets-quickstart --work_dir=cards --data=path/to/data_folder --device=host_cpu
"""

IMAGE_SIZE, DEPTH, BATCH, SPACE = 160, 0.35, 16, "ibn_fused_tucker"
# Number of networks measured for the latency model of a device, which takes a few minutes.
NETWORKS = 120
# Training images of the sample, and training steps on it: with fewer images the model overfits, with
# fewer steps it does not learn.
SAMPLE_IMAGES, SAMPLE_STEPS = 4000, 1000
# Largest number of steps of the search, and steps of each finalist in a rung of their comparison. The
# training continues from the weights of the best finalist.
SEARCH_STEPS, FINALIST_STEPS = 240, 160


def main() -> int:
    """Runs all stages, prints the table of results and returns the exit code."""
    work = Path(FLAGS.work_dir)
    data = Path(FLAGS.data) if FLAGS.data else work / "data"
    if FLAGS.data and not data.is_dir():
        raise InputError(f"--data={FLAGS.data}: no such folder")
    inputs = runner.signature(data) if FLAGS.data else []
    stages = _prepare(work, data)
    code = runner.run_stages(work, stages, inputs)
    if code:
        return code
    classes, images = _counts(work / "records")
    stages += _latency(work, classes)
    code = runner.run_stages(work, stages, inputs)
    if code:
        return code
    stages += _learn(work, images)
    return runner.run_stages(work, stages, inputs) or _summary(work, classes)


def _prepare(work: Path, data: Path) -> list[Stage]:
    stages = []
    if not FLAGS.data:
        size = f"--image_size={IMAGE_SIZE}"
        count = f"--num_train={SAMPLE_IMAGES}"
        sample = ("--mode=sample", f"--output_dir={data}", size, count, f"--seed={FLAGS.seed}")
        stages.append(Stage("sample", "data", sample, "data"))
    convert = ("--mode=convert", f"--images={data}", f"--output_dir={work / 'records'}")
    stages.append(Stage("check", "data", ("--mode=check", f"--images={data}")))
    return [*stages, Stage("convert", "data", convert, "records")]


def _counts(records: Path) -> tuple[int, int]:
    """Returns the numbers of classes and of training images of the converted folder."""
    dataset = read_json(records / "dataset.json", "data set record")
    return len(dataset["categories"]), dataset["splits"]["train"]["images"]


def _space() -> tuple[str, ...]:
    return f"--search_space={SPACE}", f"--image_size={IMAGE_SIZE}", f"--depth_multiplier={DEPTH}"


def _latency(work: Path, classes: int) -> list[Stage]:
    model, samples = work / "latency_model.json", work / "latency.jsonl"
    shape = (*_space(), f"--num_classes={classes}")
    if FLAGS.device == "madds":
        fit = ("--mode=fit", "--device=madds", *shape, f"--output={model}")
        return [Stage("latency", "latency", fit, model.name)]
    measure = (
        "--mode=measure", f"--device={FLAGS.device}", *shape, f"--networks={NETWORKS}",
        f"--seed={FLAGS.seed}", f"--output={samples}",
    )  # fmt: skip
    fit = ("--mode=fit", f"--samples={samples}", f"--output={model}")
    return [Stage("measure", "latency", measure, samples.name), Stage("latency", "latency", fit, model.name)]


def _target(model: Path) -> float:
    """Returns the predicted cost of the published `edgetpu` at the same depth multiplier."""
    from mobiledets_tf import latency, search_space

    costs = latency.load(model)
    return costs.predict_one(search_space.encode(costs.space, architecture.load("edgetpu").scaled(DEPTH)))


def _learn(work: Path, images: int) -> list[Stage]:
    epochs = 30 * images // BATCH
    steps = min(1200, max(200, epochs)) if FLAGS.data else SAMPLE_STEPS
    search_steps = min(SEARCH_STEPS, max(60, epochs)) if FLAGS.data else SEARCH_STEPS
    finalist_steps = FINALIST_STEPS * search_steps // SEARCH_STEPS
    model, records = work / "latency_model.json", f"--train_data={work / 'records'}"
    seed, batch = f"--seed={FLAGS.seed}", f"--batch_size={BATCH}"
    search = (
        *_space(), records, f"--latency_model={model}", f"--latency_target={_target(model)}",
        f"--model_dir={work / 'search'}", f"--steps={search_steps}", batch, seed, "--preset=small",
        "--finalists=6", f"--finalist_steps={finalist_steps}", "--rounds=2", "--population=10",
        "--children=14", "--quality_images=96", "--judge_images=192",
    )  # fmt: skip
    # The searched network already has its final widths, so the training does not scale them again.
    train = (
        f"--architecture={work / 'search' / 'architecture.json'}", f"--init_from={work / 'search'}", records,
        f"--model_dir={work / 'train'}", f"--image_size={IMAGE_SIZE}", f"--steps={steps}", batch,
        "--learning_rate=0.1", "--norandom_flip", "--norandom_crop", seed,
    )  # fmt: skip
    export = (
        f"--checkpoint_dir={work / 'train'}", f"--calibration_data={work / 'records'}",
        f"--eval_data={work / 'records'}", "--quantization=int8", "--input_type=uint8",
        "--postprocess=tflite", f"--output_dir={work / 'export'}",
    )  # fmt: skip
    return [
        Stage("search", "search", search, "search"),
        Stage("train", "train", train, "train"),
        Stage("export", "export", export, "export"),
    ]


def _summary(work: Path, classes: int) -> int:
    """Prints the table of results; writes `summary.json`, the network's picture and `index.html`."""
    detector = work / "export" / "detector.tflite"
    report = read_json(work / "export" / "report.json", "export report")
    network = architecture.load(str(work / "search" / "architecture.json"))
    figures = architecture.describe(network, classes, IMAGE_SIZE)
    pictures = (
        work / "search" / "search_report.png",
        work / "train" / "training_curve.png",
        work / "export" / "detections.png",
    )
    summary = {
        "float_AP": report["float"]["AP"],
        "float_AP50": report["float"]["AP50"],
        "int8_AP": report["int8"]["AP"],
        "int8_AP50": report["int8"]["AP50"],
        "parameters": figures["params"],
        "multiply_adds": figures["madds"],
        "file_bytes": detector.stat().st_size,
        "host_ms": report["latency"]["median_ms"],
        "pictures": [str(path) for path in pictures if path.exists()],
    }
    write_artefact(work / "summary.json", summary)
    drawing.draw([network], work / "architecture.png", IMAGE_SIZE, classes)
    summary["page"] = str(quickstart_page.write(work))
    for name, value in summary.items():
        print(f"{name:<14} {_text(value)}")
    return 0


def _text(value) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


run = app.command(FLAGS, main, DESCRIPTION)

if __name__ == "__main__":
    sys.exit(run())
