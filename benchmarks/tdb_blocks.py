"""Times single IBN, fused and Tucker layers at the space's feature maps and widths on every device.

  python benchmarks/tdb_blocks.py --devices=hexagon,ethos_u,edgetpu --output=blocks.json --picture=b.png

Prints one JSON object with a row for each layer: latency, multiply-adds, multiply-adds per second, and
`utilisation`, which is this rate divided by the best rate of all these layers on the chip (vendors do not
publish the peak of every chip). Each device reports the kind of its latencies.
"""

import argparse
import itertools
import json

from mobiledets_tf.architecture import FusedInvertedBottleneckSpec, InvertedBottleneckSpec, TuckerSpec
from mobiledets_tf.files import atomic_path, write_json
from tflite_export import devices
from tflite_export.graphs import block_graph

# (side of the feature map, width): the base widths of blocks 2 to 6 at 320x320.
PLACES = ((80, 32), (40, 48), (20, 96), (10, 160))
KERNELS = (3, 5)
EXPANSIONS = (4, 8)
TUCKER_RATIOS = (0.25, 0.75)


def layers(width: int) -> dict[str, object]:
    """Returns residual layers of one width, by name."""
    found = {}
    for kernel, expansion in itertools.product(KERNELS, EXPANSIONS):
        found[f"ibn k{kernel} e{expansion}"] = InvertedBottleneckSpec(width, kernel, 1, True, expansion)
        fused = FusedInvertedBottleneckSpec(width, kernel, 1, True, expansion)
        found[f"fused k{kernel} e{expansion}"] = fused
    for kernel, ratio in itertools.product(KERNELS, TUCKER_RATIOS):
        found[f"tucker k{kernel} {ratio:g}"] = TuckerSpec(width, kernel, 1, True, ratio, ratio)
    return found


def measure(name: str, variant: str) -> dict:
    """Measures all layers on one chip."""
    device, rows = devices.load(name), []
    wanted = [(side, width, *named) for side, width in PLACES for named in layers(width).items()]
    for side, width, label, spec in wanted:
        graph = block_graph((spec,), width, (side, side))
        try:
            time = device.measure_graph(graph, variant).median_ms
        except RuntimeError as error:
            print(f"{name} {variant}: {label} at {side}x{side}x{width}: {error}", flush=True)
            continue
        madds = graph.madds()
        rows.append(
            {
                "layer": label,
                "side": side,
                "width": width,
                "ms": time,
                "madds": madds,
                "gmadds_per_s": madds / time / 1e6,
            }
        )
    best = max((row["gmadds_per_s"] for row in rows), default=0.0)
    for row in rows:
        row["utilisation"] = row["gmadds_per_s"] / best
    return {
        "device": name,
        "variant": variant,
        "kind": device.KIND,
        "versions": device.versions(variant),
        "layers": rows,
    }


def draw(chips: list[dict], path: str) -> None:
    """Draws one panel per chip: the time of every layer, grouped by feature map."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(chips), 1, figsize=(11, 3.4 * len(chips)), squeeze=False, layout="constrained"
    )
    for panel, chip in zip(axes[:, 0], chips, strict=True):
        labels = list(dict.fromkeys(row["layer"] for row in chip["layers"]))
        for number, (side, width) in enumerate(PLACES):
            times = {row["layer"]: row["ms"] for row in chip["layers"] if row["side"] == side}
            places = [i + (number - 1.5) * 0.2 for i in range(len(labels))]
            heights = [times.get(label, 0.0) for label in labels]
            panel.bar(
                places,
                heights,
                0.2,
                label=f"{side}x{side}x{width}",
                color=str(0.1 + 0.25 * number),
                edgecolor="black",
                linewidth=0.5,
            )
        panel.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=8)
        panel.set(title=f"{chip['device']} {chip['variant']} ({chip['kind']})", ylabel="ms", yscale="log")
        # Room for the legend above the bars.
        panel.set_ylim(top=4 * max(row["ms"] for row in chip["layers"]))
        panel.legend(frameon=False, fontsize=8, ncols=len(PLACES), loc="upper right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--devices", default="host_cpu,hexagon,ethos_u,edgetpu", help="devices, separated by commas"
    )
    parser.add_argument("--output", help="file to write the JSON object to")
    parser.add_argument("--picture", help="PNG file to draw the latencies to")
    arguments = parser.parse_args()
    chips = [
        measure(name, variant)
        for name in arguments.devices.split(",")
        for variant in devices.load(name).VARIANTS
    ]
    result = {"chips": chips}
    if arguments.output:
        write_json(arguments.output, result)
    if arguments.picture:
        draw(chips, arguments.picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
