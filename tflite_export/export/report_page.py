"""Renders report.html of an export: a single page with all results."""

from pathlib import Path
from typing import Any

from mobiledets_tf.html_parts import document, head, picture, section, table, text, wide
from tflite_export.tflite import blocks
from tflite_export.tflite.model_file import ModelFile, Tensor

# Schema version of report.json.
SCHEMA_VERSION = 1
_SHOWN_FINDINGS = 50
_KINDS = (("float", "float model"), ("float_tflite", "float file"), ("int8", "int8 file"))


def render(report: dict[str, Any], model: ModelFile, pictures: Path) -> str:
    """Renders the page as HTML.

    Args:
      report: the report that `exporter.export` returns.
      model: the exported file.
      pictures: a PNG of detections by each detector side by side; the file need not exist.
    """
    options = report["options"]
    title = f"{report['architecture']}, {options['quantization']}, {report['num_classes']} classes"
    parts = [
        f"<h1>{text(title)}</h1>",
        _headline(report),
        section("Accuracy", _accuracy(report), _gate(report["gate"]), _suppression(report)),
        section("Quantisation error", *_error(report["quantization_error"])),
        section(
            "Detections side by side",
            picture(pictures, "The same images with the detections of each detector; dashed: ground truth."),
        ),
        section("Readiness for accelerators", *(device(*item) for item in report["readiness"].items())),
        section("Latency", *latency(report)),
        section("Operations", _histogram(report["file"]["histogram"]), _operations(model)),
        section("How it was made", _origin(report)),
    ]
    return document(title, "\n".join(parts))


def _headline(report: dict[str, Any]) -> str:
    cells = {f"AP, {words}": f"{report[name]['AP']:.3f}" for name, words in _KINDS if report.get(name)}
    cells |= {
        "latency on this CPU": f"{report['latency']['median_ms']:.2f} ms",
        "parameters": f"{report['params']:,}",
        "multiply-adds": f"{report['madds']:,}",
        "file": f"{report['file']['bytes'] / 1e6:.2f} MB",
    }
    boxes = (f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in cells.items())
    return "\n".join(["<dl>", *boxes, "</dl>"])


def _accuracy(report: dict[str, Any]) -> str:
    evaluation = report["evaluation"]
    if evaluation is None:
        return "<p>Not evaluated: no images were given.</p>"
    names = list(report["float"])
    found = ((words, report[name]) for name, words in _KINDS if report.get(name))
    rows = [(words, *(_score(metrics[key]) for key in names)) for words, metrics in found]
    which = "all" if evaluation["all_images"] else "the first"
    return table(("", *names), rows) + (
        f"<p>Measured on {which} {evaluation['images']} images of split "
        f"<b>{text(evaluation['split'])}</b> with pycocotools.</p>"
    )


def _suppression(report: dict[str, Any]) -> str:
    """Returns a table of the AP with each kind of suppression, and of the file as shipped."""
    nms = report.get("nms")
    if nms is None:
        return ""
    options = report["options"]
    words = {
        "fast": "fast suppression (the best class of each anchor)",
        "regular": "regular suppression (each class separately), one thread",
        "as_shipped": f"the file as shipped: {nms['shipped']}, scores from {options['score_threshold']:g}, "
        f"at most {options['max_detections']} boxes",
    }
    rows = [(words[name], *(_score(nms[name][key]) for key in ("AP", "AP50"))) for name in words]
    rows += [
        (f"regular suppression on {count} threads", *(_score(found[key]) for key in ("AP", "AP50")))
        for count, found in nms["regular_on_threads"].items()
        if count != "1"
    ]
    note = nms["note"][:1].upper() + nms["note"][1:]
    return table(("suppression", "AP", "AP50"), rows) + f"<p>{text(note)}.</p>"


def _score(value: float) -> str:
    """Formats a COCO metric; pycocotools reports -1 if the ground truth has no box of that size."""
    return f"{value:.4f}" if value >= 0 else "-"


def _gate(gate: dict[str, Any] | None) -> str:
    if gate is None:
        return ""
    limits = (("AP drop", "ap_drop", "max_ap_drop"), ("output error", "output_error", "max_output_error"))
    rows = [
        (words, f"{gate[value]:.4f}", "no limit" if gate[limit] is None else f"{gate[limit]:g}")
        for words, value, limit in limits
        if gate[value] is not None
    ]
    verdict = "passed" if gate["passed"] else "not passed"
    return f"<p>Quality gate: <b>{verdict}</b>.</p>" + table(("", "measured", "allowed"), rows)


def _error(error: dict[str, Any] | None) -> list[str]:
    if error is None:
        return ["<p>The file is not quantised.</p>"]
    outputs = ", ".join(f"{text(name)} {value:.4f}" for name, value in error["outputs"].items())
    rows = [
        (layer["op_index"], layer["op"], layer["block"], f"{layer['error']:.4f}", f"{layer['added']:.4f}")
        for layer in error["layers"]
    ]
    return [
        f"<p>Root mean square difference from the float file, as a fraction of the standard deviation, on "
        f"{error['images']} calibration images: {outputs}. These layers add most error:</p>",
        table(("op", "type", "block", "error", "added by this layer"), rows),
    ]


def device(name: str, verdict: dict[str, Any]) -> str:
    """Returns a paragraph on whether a file is ready for a device, with the reasons if it is not."""
    words = "ready" if verdict["ready"] else "not ready"
    compiler = verdict.get("compiler")
    how = "static check of the file" if compiler is None else f"static check; {compiler['status']}"
    if compiler and compiler["reason"]:
        how += f": {compiler['reason']}"
    if compiler and "offloaded" in compiler:
        how += f" for {compiler['soc']}, {compiler['offloaded']} of {compiler['operations']} offloaded"
    if compiler and "npu_operations" in compiler:
        how += (
            f" for {compiler['variant']}, {compiler['npu_operations']} operations on the NPU, "
            f"{compiler['cpu_operations']} on the CPU, {compiler['cycles']:,} cycles"
        )
    findings = verdict["findings"][:_SHOWN_FINDINGS]
    keys = ("op_index", "op", "block", "tensor", "reason")
    rows = [[finding[key] for key in keys] for finding in findings]
    more = len(verdict["findings"]) - len(findings)
    return (
        f"<p><b>{text(name)}</b>: {words} ({text(how)}).</p>"
        + (table(("op", "type", "block", "tensor", "reason"), rows) if rows else "")
        + (f"<p>and {more} more in report.json.</p>" if more else "")
    )


def latency(report: dict[str, Any]) -> list[str]:
    """Returns the measured latency, with a bar for each block."""
    measured = report["latency"]
    where = f"{measured['kind']} on {measured['device']}, {measured['threads']} thread(s)"
    how = f"{measured.get('statistic', 'median')} of {measured['runs']} runs"
    words = (
        f"<p>{measured['median_ms']:.2f} ms per image: {text(where)}, {text(how)}, "
        f"spread {measured['spread']:.1%}. The latency of a CPU says little about that of an "
        "accelerator.</p>"
    )
    times = measured.get("blocks_ms")
    if not times:
        return [words]
    cycles = report["readiness"]["ethos_u"]["compiler"].get("block_cycles", {})
    most = max(times.values())
    rows = [
        f"<tr><td>{text(name)}</td>"
        f'<td class="bar"><div style="width:{100 * value / most:.1f}%"></div></td>'
        f'<td class="number">{value:.3f}</td>'
        f'<td class="number">{text(f"{cycles[name]:,}" if name in cycles else "")}</td></tr>'
        for name, value in times.items()
    ]
    columns = ("block, measured alone", "", "ms on this CPU", "Ethos-U cycles (Vela's estimate)")
    return [words, wide(head(columns), rows)]


def _histogram(counts: dict[str, int]) -> str:
    return table(("type", "count"), list(counts.items()))


def _operations(model: ModelFile) -> str:
    rows = [
        (op.index, op.name, op.version, blocks.of_operator(op), ", ".join(_tensor(t) for t in op.outputs))
        for op in model.operators
    ]
    listed = table(("op", "type", "version", "block", "outputs"), rows)
    return f"<details><summary>All {len(rows)} operations</summary>{listed}</details>"


def _tensor(tensor: Tensor) -> str:
    return f"{tensor.dtype.lower()} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _origin(report: dict[str, Any]) -> str:
    calibration = report["calibration"]
    rows = [("weights", report["weights"]), *report["options"].items()]
    if calibration:
        rows += [(f"calibration {name}", value) for name, value in calibration.items()]
    rows += [("source of activation ranges", report["ranges"])] if report.get("ranges") else []
    return table(("", ""), [*rows, ("seed", report["seed"]), *report["versions"].items()])
