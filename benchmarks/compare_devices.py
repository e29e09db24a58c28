"""A search for each device, and every network that was found on every device.

  python benchmarks/compare_devices.py --work_dir=devices --devices=hexagon,host_cpu

Each device gets its latency model, a search for what the published `edgetpu` costs on it, and a
training of the network alone. Called again, it goes on. Prints one JSON object: `ms` of each
network by device, `AP` of each.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path

SPACE = "ibn_fused_tucker"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work_dir", default="compare_devices")
    parser.add_argument("--devices", default="hexagon,host_cpu")
    parser.add_argument("--networks", type=int, default=120, help="that a latency model is fitted to")
    parser.add_argument("--steps", type=int, default=400, help="of a search")
    parser.add_argument("--train_steps", type=int, default=2000, help="of a network alone")
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--depth_multiplier", type=float, default=0.35)
    parser.add_argument("--images", type=int, default=4000, help="of the drawn sample")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def run(folder: Path, *stages) -> None:
    from mobiledets_tf.quickstart import run_stages

    with contextlib.redirect_stdout(sys.stderr):
        code = run_stages(folder, stages, [], _quietly)
    if code:
        sys.exit(code)


def _quietly(arguments: list[str]) -> int:
    """Standard output is for the figures."""
    return subprocess.run(arguments, check=False, stdout=sys.stderr).returncode


def shape(options: argparse.Namespace) -> tuple[str, ...]:
    """Flags of the space."""
    return (
        f"--search_space={SPACE}", f"--image_size={options.image_size}",
        f"--depth_multiplier={options.depth_multiplier}",
    )  # fmt: skip


def latency_model(folder: Path, device: str, options: argparse.Namespace) -> list:
    """Stages that make `latency_model.json`."""
    from mobiledets_tf.quickstart import Stage

    samples, model = folder / "latency.jsonl", folder / "latency_model.json"
    measure = (
        "--mode=measure", f"--device={device}", *shape(options), "--num_classes=10",
        f"--networks={options.networks}", f"--output={samples}",
    )  # fmt: skip
    fit = ("--mode=fit", f"--samples={samples}", f"--output={model}")
    return [Stage("measure", "latency", measure, samples.name), Stage("fit", "latency", fit, model.name)]


def search(folder: Path, records: Path, options: argparse.Namespace) -> list:
    """Stages that search by the folder's latency model and train what was found."""
    from mobiledets_tf import architecture, latency, search_space
    from mobiledets_tf.quickstart import Stage

    costs = latency.load(folder / "latency_model.json")
    reference = architecture.load("edgetpu").scaled(options.depth_multiplier)
    target = costs.predict_one(search_space.encode(costs.space, reference))
    data, seed = f"--train_data={records}", f"--seed={options.seed}"
    find = (
        *shape(options), data, f"--latency_model={folder / 'latency_model.json'}", "--preset=small",
        f"--latency_target={target}", f"--model_dir={folder / 'search'}", f"--steps={options.steps}",
        seed,
    )  # fmt: skip
    train = (
        f"--architecture={folder / 'search' / 'architecture.json'}", data, "--learning_rate=0.1",
        f"--model_dir={folder / 'train'}", f"--image_size={options.image_size}",
        f"--steps={options.train_steps}", "--norandom_flip", "--norandom_crop", seed,
    )  # fmt: skip
    return [Stage("search", "search", find, "search"), Stage("train", "train", train, "train")]


def main() -> None:
    options = parse()
    from mobiledets_tf import architecture
    from mobiledets_tf.files import read_json
    from mobiledets_tf.quickstart import Stage
    from tflite_export import devices
    from tflite_export.graphs import Settings, network_graph

    work, names = Path(options.work_dir), options.devices.split(",")
    images, records = work / "images", work / "records"
    run(
        work,
        Stage("sample", "data", ("--mode=sample", f"--output_dir={images}", f"--seed={options.seed}",
              f"--num_train={options.images}", f"--image_size={options.image_size}"), images.name),
        Stage("convert", "data", ("--mode=convert", f"--images={images}", f"--output_dir={records}"),
              records.name),
    )  # fmt: skip
    # Times first: the rest keeps the machine busy.
    models = {name: latency_model(work / name, name, options) for name in names}
    for name, stages in models.items():
        run(work / name, *stages)
    for name, stages in models.items():
        run(work / name, *stages, *search(work / name, records, options))
    settings = Settings((options.image_size, options.image_size), 10)
    found = []
    for name in names:
        network = architecture.load(work / name / "search" / "architecture.json")
        graph = network_graph(network, settings)
        report = read_json(work / name / "search" / "search_report.json")["devices"][0]
        last = read_json(work / name / "train" / "eval_metrics.json")[-1]
        found.append({
            "searched_for": name, "kind": report["cost_kind"], "target_ms": report["target"],
            "ms": {other: devices.load(other).measure_graph(graph).median_ms for other in names},
            "finalists_mean_abs_pct_error": report.get("finalists_mean_abs_pct_error"),
            "AP": last["AP"], "AP50": last["AP50"], "params": report["params"], "madds": report["madds"],
            "layers": [type(layer).__name__ for block in network.blocks for layer in block],
        })  # fmt: skip
    print(json.dumps({"networks": found, "settings": vars(options)}))


if __name__ == "__main__":
    main()
