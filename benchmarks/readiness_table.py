"""Lists each network's operations and the results of the static check and the compilers.

  python benchmarks/readiness_table.py --output=readiness.json

The networks are the four published ones and one from the largest space, each quantised by PTQ and by QAT,
for 2 and 90 classes, with newly initialised weights, because structure and coverage do not depend on
training. Each row is saved as soon as it is complete, and a second call resumes. Prints one JSON object;
--markdown prints a table. A row takes one to two minutes on two cores.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
NETWORKS = ("edgetpu", "cpu", "dsp", "gpu", "searched")
SEARCHED_SPACE, SEED = "ibn_fused_tucker", 5


def architecture(name: str):
    from mobiledets_tf import architecture as architectures
    from mobiledets_tf import search_space

    if name != "searched":
        return architectures.load(name)
    import numpy as np

    space = search_space.get_space(SEARCHED_SPACE)
    return search_space.decode(space, search_space.sample(space, np.random.default_rng(SEED)))


def row(name: str, quantization: str, num_classes: int, image_size: int) -> dict:
    """Converts one network and runs every check on the file."""
    from mobiledets_tf.models import build_detector, postprocess
    from mobiledets_tf.models.quantized import quantize_detector
    from tflite_export.export import convert, export_report, quantization_aware, quantize
    from tflite_export.tflite import model_file

    network = architecture(name)
    detector = build_detector(network, num_classes, image_size, class_bias=-30.0)
    calibration = quantize.from_noise((image_size, image_size), 2, SEED)
    start = time.perf_counter()
    if quantization == "qat":
        quantized = quantize_detector(detector)
        quantization_aware.observe_ranges(quantized, calibration)
        detector = quantized.network
    options = convert.Options(quantization)
    content = convert.convert(detector, postprocess.anchors(network, image_size), options, calibration)
    seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory(prefix="mobiledets-") as folder:
        path = Path(folder) / "detector.tflite"
        path.write_bytes(content)
        model = model_file.read(path)
        verdicts = export_report.readiness(model, path)
    for verdict in verdicts.values():
        verdict["findings"] = [f"{f['op']} in {f['block']}: {f['reason']}" for f in verdict["findings"]]
    return {
        "network": name,
        "quantization": quantization,
        "num_classes": num_classes,
        "bytes": len(content),
        "histogram": model.histogram(),
        "float_operators": [op.name for op in model.float_operators()],
        "readiness": verdicts,
        "convert_s": round(seconds, 1),
    }


def markdown(rows: list[dict]) -> str:
    """Formats the rows as a Markdown table."""
    lines = [
        "| network | quantised | classes | operations | float ops | Edge TPU (static) | Hexagon | Ethos-U |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for found in rows:
        edgetpu, hexagon, ethos = (found["readiness"][name] for name in ("edgetpu", "hexagon", "ethos_u"))
        operations = " ".join(f"{count} {name}" for name, count in found["histogram"].items())
        faults = edgetpu["findings"]
        static = f"not ready: {len(faults)} findings, {faults[0]}" if faults else "ready"
        offloaded, npu = hexagon["compiler"], ethos["compiler"]
        lines.append(
            f"| {found['network']} | {found['quantization']} | {found['num_classes']} | {operations} "
            f"| {', '.join(found['float_operators'])} | {static} "
            f"| {offloaded.get('offloaded')} of {offloaded.get('operations')} offloaded "
            f"| {npu.get('npu_operations')} on the NPU, {npu.get('cpu_operations')} on the CPU |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", default="readiness.json", help="file that stores the rows")
    parser.add_argument("--image_size", type=int, default=320)
    parser.add_argument("--markdown", action="store_true", help="print a table instead of JSON")
    flags = parser.parse_args()
    from mobiledets_tf import compat  # noqa: F401  (legacy Keras, before TensorFlow loads)
    from mobiledets_tf.files import read_json, write_json

    rows = read_json(flags.output)["rows"] if os.path.exists(flags.output) else []
    done = {(found["network"], found["quantization"], found["num_classes"]) for found in rows}
    for num_classes in (90, 2):
        for name in NETWORKS:
            for quantization in ("int8", "qat"):
                if (name, quantization, num_classes) not in done:
                    rows.append(row(name, quantization, num_classes, flags.image_size))
                    write_json(flags.output, {"rows": rows})
    print(markdown(rows) if flags.markdown else json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
