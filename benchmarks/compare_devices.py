"""Searches with one controller per device and measures each network found on every device.

  python benchmarks/compare_devices.py --work_dir=devices --devices=hexagon,host_cpu

Each device gets its own latency model and target: the median latency on it of random networks with the
multiply-adds of the published `edgetpu`, so that all devices get the same budget. The controllers take
turns on the same shared weights; each device's network is then trained alone. To resume, run the same
command again. Prints one JSON object: `ms` of each network by device, and `AP` of each network.
"""

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work_dir", default="compare_devices", help="folder for all files")
    parser.add_argument("--devices", default="hexagon,host_cpu", help="devices, separated by commas")
    parser.add_argument("--search_space", default="ibn_fused")
    parser.add_argument(
        "--networks", type=int, default=200, help="number of networks that each latency model is fitted to"
    )
    parser.add_argument("--steps", type=int, default=1600, help="search steps, over all devices together")
    parser.add_argument("--beta", type=float, default=-0.02, help="weight of the cost in the reward")
    parser.add_argument("--train_steps", type=int, default=1500, help="steps of stand-alone training")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--depth_multiplier", type=float, default=0.35)
    parser.add_argument("--images", type=int, default=4000, help="training images of the drawn sample")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def run(folder: Path, *stages) -> None:
    from mobiledets_tf.quickstart.runner import run_stages

    with contextlib.redirect_stdout(sys.stderr):
        code = run_stages(folder, stages, [], _quietly)
    if code:
        sys.exit(code)


def _quietly(arguments: list[str]) -> int:
    """Runs a command with its standard output sent to stderr, since stdout is for the results."""
    return subprocess.run(arguments, check=False, stdout=sys.stderr).returncode


def shape(options: argparse.Namespace) -> tuple[str, ...]:
    """Returns the flags of the search space."""
    return (
        f"--search_space={options.search_space}",
        f"--image_size={options.image_size}",
        f"--depth_multiplier={options.depth_multiplier}",
    )


def latency_model(folder: Path, device: str, options: argparse.Namespace) -> list:
    """Returns the stages that make `latency_model.json`."""
    from mobiledets_tf.quickstart.runner import Stage

    samples, model = folder / "latency.jsonl", folder / "latency_model.json"
    measure = (
        "--mode=measure",
        f"--device={device}",
        *shape(options),
        "--num_classes=10",
        f"--networks={options.networks}",
        f"--output={samples}",
    )
    fit = ("--mode=fit", f"--samples={samples}", f"--output={model}")
    return [Stage("measure", "latency", measure, samples.name), Stage("fit", "latency", fit, model.name)]


def target(costs, multiplier: float) -> float:
    """Returns the median cost of random networks with the multiply-adds of the published `edgetpu`."""
    import numpy as np

    from mobiledets_tf import architecture, latency, search_space

    exact = latency.madds_model(costs.space, costs.image_size, costs.num_classes)
    # The smaller spaces have no Tucker layers and so do not contain the published network.
    largest = search_space.get_space("ibn_fused_tucker", depth_multiplier=multiplier)
    published = search_space.encode(largest, architecture.load("edgetpu").scaled(multiplier))
    wanted = latency.madds_model(largest, costs.image_size, costs.num_classes).predict_one(published)
    networks = search_space.sample(costs.space, np.random.default_rng(0), 200_000)
    equal = networks[np.abs(exact.predict(networks) / wanted - 1) <= 0.03]
    return float(np.median(costs.predict(equal)))


def search(work: Path, names: list[str], records: Path, options: argparse.Namespace):
    """Returns the stage that searches with the latency models of all devices."""
    from mobiledets_tf import latency
    from mobiledets_tf.quickstart.runner import Stage

    models = [work / name / "latency_model.json" for name in names]
    flags = [f"--latency_model={path}" for path in models]
    flags += [f"--latency_target={target(latency.load(path), options.depth_multiplier)}" for path in models]
    flags += [f"--train_data={records}", f"--model_dir={work / 'search'}", "--preset=small"]
    flags += [f"--{name}={getattr(options, name)}" for name in ("steps", "beta", "seed")]
    return Stage("search", "search", (*shape(options), *flags), "search")


def train(folder: Path, network: Path, records: Path, options: argparse.Namespace):
    """Returns the stage that trains a network alone, in the subfolder `train` of a folder."""
    from mobiledets_tf.quickstart.runner import Stage

    flags = (
        f"--architecture={network}",
        f"--train_data={records}",
        f"--model_dir={folder / 'train'}",
        f"--image_size={options.image_size}",
        f"--steps={options.train_steps}",
        "--learning_rate=0.1",
        "--norandom_flip",
        "--norandom_crop",
        f"--seed={options.seed}",
    )
    return Stage("train", "train", flags, "train")


def main() -> None:
    options = parse()
    from mobiledets_tf import architecture
    from mobiledets_tf.files import read_json
    from mobiledets_tf.quickstart.runner import Stage
    from tflite_export import devices
    from tflite_export.graphs import Settings, network_graph

    work, names = Path(options.work_dir), options.devices.split(",")
    images, records = work / "images", work / "records"
    data = (
        Stage(
            "sample",
            "data",
            (
                "--mode=sample",
                f"--output_dir={images}",
                f"--seed={options.seed}",
                f"--num_train={options.images}",
                f"--image_size={options.image_size}",
            ),
            images.name,
        ),
        Stage(
            "convert",
            "data",
            ("--mode=convert", f"--images={images}", f"--output_dir={records}"),
            records.name,
        ),
    )
    run(work, *data)
    # Latencies are measured first, because the later stages keep the machine busy.
    models = {name: latency_model(work / name, name, options) for name in names}
    for name, stages in models.items():
        run(work / name, *stages)
    run(work, *data, search(work, names, records, options))
    report = read_json(work / "search" / "search_report.json")
    settings = Settings((options.image_size, options.image_size), 10)
    found = []
    for name, entry in zip(names, report["devices"], strict=True):
        path = work / "search" / f"architecture_{entry['device']}.json"
        run(work / name, *models[name], train(work / name, path, records, options))
        network = architecture.load(path)
        graph = network_graph(network, settings)
        last = read_json(work / name / "train" / "eval_metrics.json")[-1]
        found.append(
            {
                "searched_for": name,
                "kind": entry["cost_kind"],
                "target_ms": entry["target"],
                "ms": {other: devices.load(other).measure_graph(graph).median_ms for other in names},
                "finalists_mean_abs_pct_error": entry.get("finalists_mean_abs_pct_error"),
                "shared_quality": entry["quality"],
                "AP": last["AP"],
                "AP50": last["AP50"],
                "params": entry["params"],
                "madds": entry["madds"],
                "layers": [type(layer).__name__ for block in network.blocks for layer in block],
            }
        )
    print(json.dumps({"networks": found, "settings": vars(options)}))


if __name__ == "__main__":
    main()
