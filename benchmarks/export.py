"""Measures the cost of verification: a verified int8 export compared with a plain conversion.

  python benchmarks/export.py --runs=3

Both use the same network, weights and calibration images, and alternate in one process. Prints one JSON
object: `verified_over_plain_median` is the ratio of times, and `candidate_latency_s` the time needed to
determine the latency of a candidate architecture on the slowest of the devices.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def plain(settings, detector) -> float:
    """Returns the seconds of a TFLiteConverter call as in TensorFlow's guide."""
    from mobiledets_tf.compat import tf
    from mobiledets_tf.native_output import held_back
    from tflite_export.export import quantize

    calibration = quantize.from_records(
        list(settings.calibration_files), settings.source.image_size, settings.calibration_images, 0
    )
    start = time.perf_counter()
    with held_back():
        converter = tf.lite.TFLiteConverter.from_keras_model(detector)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([next(iter(s.values()))] for s in calibration.samples())
        converter.inference_input_type = tf.uint8
        converter.convert()
    return time.perf_counter() - start


def verified(settings, folder: Path) -> float:
    """Returns the seconds of an export with all its checks."""
    from tflite_export.export import exporter

    start = time.perf_counter()
    exporter.export(settings, folder)
    return time.perf_counter() - start


def candidate_latency(image_size: int) -> dict[str, float]:
    """Returns the seconds needed to determine the latency of the published dsp network, by device."""
    from mobiledets_tf import architecture
    from mobiledets_tf.errors import InputError
    from tflite_export import devices
    from tflite_export.graphs import Settings, network_graph

    found = {}
    for name in ("host_cpu", "hexagon", "ethos_u"):
        start = time.perf_counter()
        graph = network_graph(architecture.load("dsp"), Settings((image_size, image_size)))
        try:
            devices.load(name).measure_graph(graph)
        except InputError:  # The device's optional dependency is not installed.
            continue
        found[name] = time.perf_counter() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="number of conversions of each kind")
    parser.add_argument("--architecture", default="edgetpu")
    parser.add_argument("--image_size", type=int, default=320)
    parser.add_argument("--calibration_images", type=int, default=100)
    parser.add_argument("--eval_images", type=int, default=60)
    flags = parser.parse_args()
    from mobiledets_tf import compat  # noqa: F401  (legacy Keras, before TensorFlow loads)
    from mobiledets_tf.cli import data
    from mobiledets_tf.weights import checkpoints, trained_network
    from tflite_export.export import exporter

    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
        sample, records = Path(folder) / "sample", Path(folder) / "records"
        counts = (f"--num_train={flags.calibration_images}", f"--num_val={flags.eval_images}")
        data.run(["data", "--mode=sample", f"--output_dir={sample}", *counts])
        data.run(["data", "--mode=convert", f"--images={sample}", f"--output_dir={records}"])
        train, val = (tuple(map(str, sorted(records.glob(f"{split}-*")))) for split in ("train", "val"))
        network = trained_network.resolve(flags.architecture, None, None, flags.image_size, None, train)
        detector = trained_network.load_detector(network)
        weights = {weight.name: weight for weight in detector.weights}
        path = checkpoints.save(weights, Path(folder) / "train", 1)
        network = trained_network.resolve(flags.architecture, path, None, flags.image_size, None, train)
        settings = exporter.Settings(
            network,
            calibration_files=train,
            eval_files=val,
            calibration_images=flags.calibration_images,
        )
        pairs = []
        for run in range(flags.runs):
            pairs.append((plain(settings, detector), verified(settings, Path(folder) / f"out{run}")))
    latencies = candidate_latency(flags.image_size)
    print(
        json.dumps(
            {
                "verified_over_plain_median": statistics.median(after / before for before, after in pairs),
                "plain_s": [before for before, _ in pairs],
                "verified_s": [after for _, after in pairs],
                "candidate_latency_s": max(latencies.values()),
                "candidate_latency_by_device_s": latencies,
                "architecture": flags.architecture,
                "image_size": flags.image_size,
                "calibration_images": flags.calibration_images,
                "eval_images": flags.eval_images,
            }
        )
    )


if __name__ == "__main__":
    main()
