"""Times published MobileDets, IBN-only twins with equal multiply-adds, and MobileNetV2 on every device.

  python benchmarks/published_latency.py --devices=hexagon,ethos_u,edgetpu --output=published.json

Each device reports the kind of its times (measured, simulated, compiled, modelled). All networks use ReLU6
and no squeeze-excite, so that every device can run every network. Prints one JSON object; --picture also
draws it.
"""

import argparse
import dataclasses
import json

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture.baselines import ibn_twin, mobilenet_v2
from mobiledets_tf.files import atomic_path, write_json
from tflite_export import devices
from tflite_export.graphs import network_graph

MULTIPLIERS = (1.0, 1.4, 2.0)


def networks() -> dict[str, architectures.Architecture]:
    """Returns all networks to compare, by name."""
    found = {}
    for name in architectures.PUBLISHED:
        network = dataclasses.replace(architectures.load(name), activation="relu6", se_ratio=None)
        found[name] = network
        if name != "cpu":
            found[f"{name} as IBN"] = ibn_twin(network)
    return found | {f"mobilenet_v2 x{m:g}": mobilenet_v2(m) for m in MULTIPLIERS}


def measure(name: str, variant: str, networks: dict) -> dict:
    """Returns the times of all networks on one chip, and the ratios of the twins to their originals."""
    device = devices.load(name)
    times = {}
    for label, network in networks.items():
        try:
            times[label] = device.measure_graph(network_graph(network), variant).median_ms
        except RuntimeError as error:
            times[label] = None
            print(f"{name} {variant}: {label}: {error}", flush=True)
    pairs = [n for n in networks if f"{n} as IBN" in times and times[n] and times[f"{n} as IBN"]]
    return {
        "device": name,
        "variant": variant,
        "kind": device.KIND,
        "versions": device.versions(variant),
        "ms": times,
        "ibn_twin_over_published": {n: times[f"{n} as IBN"] / times[n] for n in pairs},
    }


def draw(rows: list[dict], madds: dict[str, int], path: str) -> None:
    """Draws one panel per chip: time against multiply-adds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(rows), figsize=(5 * len(rows), 4.4), squeeze=False, layout="constrained"
    )
    for panel, row in zip(axes[0], rows, strict=True):
        for label, time in row["ms"].items():
            if time is None:
                continue
            marker = "s" if label.endswith("as IBN") else "^" if label.startswith("mobilenet") else "o"
            panel.plot(madds[label] / 1e9, time, marker)
            panel.annotate(
                label, (madds[label] / 1e9, time), fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
        panel.set(
            title=f"{row['device']} {row['variant']} ({row['kind']})",
            ylabel="ms",
            xlabel="multiply-adds, billions",
            ylim=(0, None),
        )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--devices", default="host_cpu,hexagon,ethos_u,edgetpu", help="devices, separated by commas"
    )
    parser.add_argument("--output", help="file to write the JSON object to")
    parser.add_argument("--picture", help="PNG file to draw the times to")
    arguments = parser.parse_args()
    compared = networks()
    madds = {name: architectures.describe(network)["madds"] for name, network in compared.items()}
    rows = [
        measure(name, variant, compared)
        for name in arguments.devices.split(",")
        for variant in devices.load(name).VARIANTS
    ]
    result = {"image_size": 320, "num_classes": 90, "madds": madds, "devices": rows}
    if arguments.output:
        write_json(arguments.output, result)
    if arguments.picture:
        draw(rows, madds, arguments.picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
