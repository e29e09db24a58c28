"""One self-contained HTML page of a finished quickstart: no script, no link to the network.

Everything is read from the files that the stages wrote. Names in them are the user's, so all
text is escaped, and the page forbids itself everything but its own style and pictures.
"""

import base64
import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobiledets_tf import architecture
from mobiledets_tf.files import read_json, write_text
from mobiledets_tf.version import WRITTEN_BY

NAME = "index.html"
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
figure { margin: 1rem 0; } img { background: white; height: auto; max-width: 100%; }
figcaption, footer { font-size: 0.85rem; opacity: 0.8; }
dl { display: grid; gap: 0.75rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
dl div { border: 1px solid; border-radius: 0.4rem; padding: 0.5rem 0.75rem; }
dt { font-size: 0.85rem; } dd { font-size: 1.3rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th, td { border-bottom: 1px solid #8888; padding: 0.2rem 0.6rem; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
td.bar { min-width: 8rem; width: 45%; } td.bar div { background: currentColor; height: 0.7rem; }
code { overflow-wrap: anywhere; }
"""
_SHOWN_FINDINGS = 20


def write(work_dir: str | os.PathLike) -> Path:
    """Writes `index.html` into the folder of a finished quickstart, atomically.

    Args:
      work_dir: with `summary.json`, `search/`, `train/` and `export/`.

    Returns:
      The path of the page.

    Raises:
      InputError: a report is missing or broken.
    """
    work = Path(work_dir)
    summary = read_json(work / "summary.json", "summary")
    report = read_json(work / "export" / "report.json", "export report")
    search = read_json(work / "search" / "search_report.json", "search report")
    network = architecture.load(work / "search" / "architecture.json")
    figures = architecture.describe(network, report["num_classes"], tuple(report["image_size"]))
    body = "\n".join([
        f"<h1>{_text(network.name)}: from images to an int8 detector</h1>",
        _headline(summary, report),
        _section("Search", _search_words(search), _picture(
            work / "architecture.png", "The network that was found, a bar a layer, by type and output width."
        ), _picture(
            work / "search" / "search_report.png",
            "Reward, quality and cost over the steps, the Pareto set, and what the policy thinks.",
        )),
        _section("Training", _picture(
            work / "train" / "training_curve.png", "AP and loss on the evaluation images over the steps."
        )),
        _section("Detections, float against int8", _accuracy(report), _picture(
            work / "export" / "detections.png",
            "The same images by the float model and by the int8 file. White dashed boxes are the truth.",
        )),
        _section("Ready for devices", *(_device(*item) for item in report["readiness"].items())),
        _section("Latency", _latency(report["latency"]), _layers(figures)),
        _section("Files", _files(work)),
    ])  # fmt: skip
    write_text(work / NAME, _page(f"{network.name} detector", body))
    return work / NAME


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
<footer>Written by {_text(WRITTEN_BY)}.</footer>
</body>
</html>
"""


def _section(title: str, *parts: str) -> str:
    return "\n".join(["<section>", f"<h2>{_text(title)}</h2>", *parts, "</section>"])


def _headline(summary: dict[str, Any], report: dict[str, Any]) -> str:
    ready = "ready" if report["readiness"]["edgetpu"]["ready"] else "not ready"
    cells = {
        "AP50, float": f"{summary['float_AP50']:.3f}",
        "AP50, int8 file": f"{summary['int8_AP50']:.3f}",
        "on this host's CPU": f"{summary['host_ms']:.1f} ms",
        "Edge TPU, static check": ready,
        "parameters": f"{summary['parameters']:,}",
        "multiply-adds": f"{summary['multiply_adds']:,}",
        "file": f"{summary['file_bytes'] / 1e6:.2f} MB",
    }
    boxes = [f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in cells.items()]
    return "\n".join(["<dl>", *boxes, "</dl>"])


def _search_words(search: dict[str, Any]) -> str:
    ratio = search["cost"] / search["target"]
    return (
        f"<p>Cost {search['cost']:,.5g} {_text(search['cost_unit'])} ({_text(search['cost_kind'])}), "
        f"{ratio:.2f} of the target {search['target']:,.5g}.</p>"
    )


def _accuracy(report: dict[str, Any]) -> str:
    rows = [(name, *(f"{report[name][key]:.4f}" for key in ("AP", "AP50"))) for name in ("float", "int8")]
    drop = report["float"]["AP"] - report["int8"]["AP"]
    return _table(("", "AP", "AP50"), rows) + (
        f"<p>On {report['evaluation']['images']} images; AP drops by {drop:.4f} from float to int8.</p>"
    )


def _device(name: str, verdict: dict[str, Any]) -> str:
    words = "ready" if verdict["ready"] else f"not ready, {len(verdict['findings'])} findings"
    findings = verdict["findings"][:_SHOWN_FINDINGS]
    rows = [[finding.get(key) for key in ("op", "block", "reason")] for finding in findings]
    return f"<p><b>{_text(name)}</b>: {words}, by a static check of the file.</p>" + (
        _table(("operation", "block", "reason"), rows) if rows else ""
    )


def _latency(latency: dict[str, Any]) -> str:
    return (
        f"<p>{latency['median_ms']:.2f} ms an image: {_text(latency['kind'])} on {_text(latency['device'])}, "
        f"{latency['threads']} thread(s), median of {latency['runs']} runs. The time of a CPU says little of "
        "the time of an accelerator. By layer, what the network computes:</p>"
    )


def _layers(figures: dict[str, Any]) -> str:
    most = max(layer["madds"] for layer in figures["layers"])
    rows = [
        f'<tr><td>{_text(layer["name"])}</td><td>{_text(layer["op"])}</td>'
        f'<td class="bar"><div style="width:{100 * layer["madds"] / most:.1f}%"></div></td>'
        f'<td class="number">{layer["madds"]:,}</td></tr>'
        for layer in figures["layers"]
    ]
    return _wide(_head(("layer", "type", "", "multiply-adds")), rows)


def _files(work: Path) -> str:
    names = ("export/detector.tflite", "export/labels.txt", "export/report.json", "search/architecture.json")
    items = [f'<li><a href="{name}"><code>{name}</code></a></li>' for name in names if (work / name).exists()]
    return "\n".join(["<ul>", *items, "</ul>"])


def _picture(path: Path, words: str) -> str:
    if not path.exists():
        return f"<p>No picture {_text(path.name)}.</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{_text(words)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{_text(words)}</figcaption></figure>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = ["".join(f"<td>{_text(value)}</td>" for value in row) for row in rows]
    return _wide(_head(columns), [f"<tr>{row}</tr>" for row in cells])


def _head(columns: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<th>{_text(name)}</th>' for name in columns)}</tr>"


def _wide(head: str, rows: Sequence[str]) -> str:
    return "\n".join(['<div class="wide"><table>', head, *rows, "</table></div>"])


def _text(value: Any) -> str:
    return "" if value is None else html.escape(str(value))
