"""Writes the self-contained HTML page of a finished quickstart, without scripts or external links.

All content is read from the files that the stages wrote. They contain names chosen by the user, so
all text is escaped, and the page's content security policy allows only its own inline style and
embedded images.
"""

import os
from pathlib import Path
from typing import Any

from mobiledets_tf import architecture
from mobiledets_tf.files import read_artefact, write_text
from mobiledets_tf.html_parts import document, picture, section, table, text
from mobiledets_tf.search.settings import REPORT_VERSION

NAME = "index.html"
# Schema version of summary.json.
SUMMARY_VERSION = 1


def write(work_dir: str | os.PathLike) -> Path:
    """Writes `index.html` into the folder of a finished quickstart, atomically.

    Args:
      work_dir: work folder; it contains `summary.json`, `search/`, `train/` and `export/`.

    Returns:
      The path of the page.

    Raises:
      InputError: a report is missing or malformed.
    """
    # Imported here because it loads the .tflite readers, which would slow down the quickstart's --help.
    from tflite_export.export import report_page as parts

    work = Path(work_dir)
    summary = read_artefact(work / "summary.json", "summary", SUMMARY_VERSION, absent=1)
    report = read_artefact(work / "export" / "report.json", "export report", parts.SCHEMA_VERSION)
    path = work / "search" / "search_report.json"
    search = read_artefact(path, "search report", REPORT_VERSION, oldest=3)
    network = architecture.load(work / "search" / "architecture.json")
    body = "\n".join(
        [
            f"<h1>{text(network.name)}: from images to an int8 detector</h1>",
            _headline(summary, report),
            section(
                "Search",
                _search_words(search),
                _finalists(search),
                picture(
                    work / "architecture.png",
                    "The network found: one bar per layer, with its type and output width.",
                ),
                picture(
                    work / "search" / "search_report.png",
                    "Quality and cost over the search steps, the Pareto set, and the distribution that "
                    "networks are drawn from.",
                ),
            ),
            *_latency_model(work / "latency_model.png", search["cost_kind"]),
            section(
                "Training",
                picture(
                    work / "train" / "training_curve.png",
                    "AP and loss on the evaluation images over the training steps.",
                ),
            ),
            section(
                "Detections, float against int8",
                _accuracy(report),
                picture(
                    work / "export" / "detections.png",
                    "Detections of the float model and of the int8 file on the same images. "
                    "White dashed boxes are the annotations.",
                ),
            ),
            section("Readiness for devices", *(parts.device(*item) for item in report["readiness"].items())),
            section("Latency", *parts.latency(report)),
            section("Files", _files(work)),
        ]
    )
    write_text(work / NAME, document(f"{network.name} detector", body))
    return work / NAME


def _headline(summary: dict[str, Any], report: dict[str, Any]) -> str:
    ready = "ready" if report["readiness"]["edgetpu"]["ready"] else "not ready"
    cells = {
        "AP50, float": f"{summary['float_AP50']:.3f}",
        "AP50, int8 file": f"{summary['int8_AP50']:.3f}",
        "latency on this CPU": f"{summary['host_ms']:.1f} ms",
        "Edge TPU, static check": ready,
        "parameters": f"{summary['parameters']:,}",
        "multiply-adds": f"{summary['multiply_adds']:,}",
        "file": f"{summary['file_bytes'] / 1e6:.2f} MB",
    }
    boxes = [f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in cells.items()]
    return "\n".join(["<dl>", *boxes, "</dl>"])


def _latency_model(plot: Path, kind: str) -> list[str]:
    """Returns the latency section, or an empty list if the cost is counted exactly rather than predicted.

    Whether the plot exists does not matter: an earlier run for a device may have left its plot in the folder.
    """
    if kind == "exact":
        return []
    words = f"Predicted against {kind} latency of networks that the model was not fitted to."
    return [section("Latency model", picture(plot, words))]


def _search_words(search: dict[str, Any]) -> str:
    ratio = search["cost"] / search["target"]
    return (
        f"<p>Cost {_number(search['cost'])} {text(search['cost_unit'])} ({text(search['cost_kind'])}), "
        f"{ratio:.2f} times the target of {_number(search['target'])}.</p>"
    ) + "".join(f"<p>{text(line)}.</p>" for line in search.get("words", ()))


def _finalists(search: dict[str, Any]) -> str:
    """Returns a table of the finalists, published networks included, with the chosen one first."""
    entries = search["devices"][0]["finalists"]
    metric = search["settings"]["metric"]
    sign = -1 if metric == "loss" else 1

    def shown(value: float | None) -> str:
        return "-" if value is None else f"{sign * value:.4f}"

    rows = [
        (
            entry["source"],
            shown(entry["quality"]),
            str(entry["trained_alone"]),
            shown(entry["score_alone"]),
            f"{entry['cost_over_target']:.3f}",
            f"{entry['params']:,}",
        )
        for entry in entries
    ]
    names = (
        "source",
        f"{metric}, shared weights",
        "steps alone",
        f"{metric}, trained alone",
        "cost / target",
        "parameters",
    )
    return "<p>Finalists; the selected one comes first:</p>" + table(names, rows)


def _accuracy(report: dict[str, Any]) -> str:
    rows = [(name, *(f"{report[name][key]:.4f}" for key in ("AP", "AP50"))) for name in ("float", "int8")]
    drop = report["float"]["AP"] - report["int8"]["AP"]
    return table(("", "AP", "AP50"), rows) + (
        f"<p>Measured on {report['evaluation']['images']} images; AP drops by {drop:.4f} from float to "
        "int8.</p>"
    )


def _files(work: Path) -> str:
    names = (
        "export/detector.tflite",
        "export/labels.txt",
        "export/labels_indexed.txt",
        "export/report.html",
        "export/report.json",
        "search/architecture.json",
    )
    items = [f'<li><a href="{name}"><code>{name}</code></a></li>' for name in names if (work / name).exists()]
    return "\n".join(["<ul>", *items, "</ul>"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
