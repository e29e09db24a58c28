"""The quickstart's stages, from images with boxes to an int8 detector and the page about it."""

from pathlib import Path
from typing import Any

from mobiledets_tf import architecture, latency, search_space
from mobiledets_tf.architecture import drawing
from mobiledets_tf.data.records import read_dataset
from mobiledets_tf.errors import InputError
from mobiledets_tf.files import read_artefact, write_artefact
from mobiledets_tf.quickstart import quickstart_page, runner
from mobiledets_tf.quickstart.options import QuickstartOptions
from mobiledets_tf.quickstart.runner import Stage

IMAGE_SIZE, DEPTH, BATCH, SPACE = 160, 0.35, 16, "ibn_fused_tucker"
# Number of networks measured for the latency model of a device, which takes a few minutes.
NETWORKS = 120
# Training images of the sample, and training steps on it: with fewer images the model overfits, with
# fewer steps it does not learn.
SAMPLE_IMAGES, SAMPLE_STEPS = 4000, 800
# Largest number of steps of the search, and steps of each finalist in a rung of their comparison. The
# training continues from the weights of the best finalist.
SEARCH_STEPS, FINALIST_STEPS = 160, 160
# Few finalists with enough steps rather than many: losses after 100 steps hardly rank networks, after 300
# they do (docs/search.md). Most of the search's time is spent on them.
FINALISTS = 2
# On a user's data, training takes 30 epochs, but at least LEAST_STEPS and at most MOST_STEPS steps; the
# search takes at least LEAST_SEARCH_STEPS.
LEAST_STEPS, MOST_STEPS, LEAST_SEARCH_STEPS = 200, 1200, 60


def run(options: QuickstartOptions) -> tuple[int, dict[str, Any] | None]:
    """Runs all stages that are not done yet.

    Returns:
      (0, the results by name), or the exit code of the stage that failed or was interrupted, and None.

    Raises:
      InputError: the data folder does not exist.
    """
    work = Path(options.work_dir)
    data = Path(options.data) if options.data else work / "data"
    if options.data and not data.is_dir():
        raise InputError(f"--data={options.data}: this folder does not exist")
    inputs = runner.signature(data) if options.data else []
    stages = _prepare(work, data, options)
    if code := runner.run_stages(work, stages, inputs):
        return code, None
    classes, images = _counts(work / "records")
    stages += latency_stages(work, classes, options)
    if code := runner.run_stages(work, stages, inputs):
        return code, None
    stages += _learn(work, images, options)
    if code := runner.run_stages(work, stages, inputs):
        return code, None
    return 0, summarise(work, classes)


def _prepare(work: Path, data: Path, options: QuickstartOptions) -> list[Stage]:
    stages = []
    if not options.data:
        size = f"--image_size={IMAGE_SIZE}"
        count = f"--num_train={SAMPLE_IMAGES}"
        sample = ("--mode=sample", f"--output_dir={data}", size, count, f"--seed={options.seed}")
        stages.append(Stage("sample", "data", sample, "data"))
    convert = ("--mode=convert", f"--images={data}", f"--output_dir={work / 'records'}")
    stages.append(Stage("check", "data", ("--mode=check", f"--images={data}")))
    return [*stages, Stage("convert", "data", convert, "records")]


def _counts(records: Path) -> tuple[int, int]:
    """Returns the numbers of classes and of training images of the converted folder."""
    dataset = read_dataset(records / "dataset.json")
    return len(dataset["categories"]), dataset["splits"]["train"]["images"]


def _space() -> tuple[str, ...]:
    return f"--search_space={SPACE}", f"--image_size={IMAGE_SIZE}", f"--depth_multiplier={DEPTH}"


def latency_stages(work: Path, classes: int, options: QuickstartOptions) -> list[Stage]:
    """Returns the stages that make the latency model of the device."""
    model, samples = work / "latency_model.json", work / "latency.jsonl"
    shape = (*_space(), f"--num_classes={classes}")
    if options.device == "madds":
        fit = ("--mode=fit", "--device=madds", *shape, f"--output={model}")
        return [Stage("latency", "latency", fit, model.name)]
    measure = (
        "--mode=measure",
        f"--device={options.device}",
        *shape,
        f"--networks={NETWORKS}",
        f"--seed={options.seed}",
        f"--output={samples}",
    )
    fit = ("--mode=fit", f"--samples={samples}", f"--output={model}")
    return [Stage("measure", "latency", measure, samples.name), Stage("latency", "latency", fit, model.name)]


def target(model: Path) -> float:
    """Returns the predicted cost of the published `edgetpu` at the same depth multiplier."""
    costs = latency.load(model)
    return costs.predict_one(search_space.encode(costs.space, architecture.load("edgetpu").scaled(DEPTH)))


def _learn(work: Path, images: int, options: QuickstartOptions) -> list[Stage]:
    epochs = 30 * images // BATCH
    steps = min(MOST_STEPS, max(LEAST_STEPS, epochs)) if options.data else SAMPLE_STEPS
    search_steps = min(SEARCH_STEPS, max(LEAST_SEARCH_STEPS, epochs)) if options.data else SEARCH_STEPS
    finalist_steps = FINALIST_STEPS * search_steps // SEARCH_STEPS
    model, records = work / "latency_model.json", f"--train_data={work / 'records'}"
    seed, batch = f"--seed={options.seed}", f"--batch_size={BATCH}"
    search = (
        *_space(),
        records,
        f"--latency_model={model}",
        f"--latency_target={target(model)}",
        f"--model_dir={work / 'search'}",
        f"--steps={search_steps}",
        batch,
        seed,
        "--preset=small",
        f"--finalists={FINALISTS}",
        f"--finalist_steps={finalist_steps}",
        "--rounds=2",
        "--population=10",
        "--children=14",
        "--quality_images=96",
        "--judge_images=192",
    )
    # The searched network already has its final widths, so the training does not scale them again.
    train = (
        f"--architecture={work / 'search' / 'architecture.json'}",
        f"--init_from={work / 'search'}",
        records,
        f"--model_dir={work / 'train'}",
        f"--image_size={IMAGE_SIZE}",
        f"--steps={steps}",
        batch,
        "--learning_rate=0.1",
        "--norandom_flip",
        "--norandom_crop",
        seed,
    )
    export = (
        f"--checkpoint_dir={work / 'train'}",
        f"--calibration_data={work / 'records'}",
        f"--eval_data={work / 'records'}",
        "--quantization=int8",
        "--input_type=uint8",
        "--postprocess=tflite",
        f"--output_dir={work / 'export'}",
    )
    return [
        Stage("search", "search", search, "search"),
        Stage("train", "train", train, "train"),
        Stage("export", "export", export, "export"),
    ]


def summarise(work: Path, classes: int) -> dict[str, Any]:
    """Returns the table of results; writes `summary.json`, a drawing of the network and `index.html`."""
    detector = work / "export" / "detector.tflite"
    # Imported here because it loads the .tflite readers.
    from tflite_export.export import report_page

    report = read_artefact(work / "export" / "report.json", "export report", report_page.SCHEMA_VERSION)
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
    write_artefact(work / "summary.json", {"schema_version": quickstart_page.SUMMARY_VERSION} | summary)
    drawing.draw([network], work / "architecture.png", IMAGE_SIZE, classes)
    summary["page"] = str(quickstart_page.write(work))
    return summary
