"""The rooms stand on floors: each imports those below it alone, and the lowest need no TensorFlow."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mobiledets_tf", "tflite_export", "object_detection_configs")
# From the ground up; rooms of one line do not import each other, but for those of the first.
FLOORS = (
    (
        "errors",
        "options",
        "commands",
        "version",
        "files",
        "folder_lock",
        "interrupts",
        "native_output",
        "distribution",
        "html_parts",
        "compat",
        "replicas",
    ),
    ("architecture",),
    ("search_space", "layers", "configs"),
    ("latency", "models", "data"),
    ("tflite",),
    ("weights", "graphs"),
    ("detection", "devices", "mobiledet"),
    ("search", "detector"),
    ("export",),
    ("quickstart", "doctor"),
    ("api",),
    ("cli",),
)
# The one arrow upwards: `models` hands out `MobileDet`, which reads weights, under its public name. It is
# loaded when a user asks for it, and nothing in the project asks.
PUBLIC_NAME = ("models", "mobiledet", "mobiledets_tf/models/__init__.py")


def _room(name: str) -> str | None:
    """The room of a module, or None if it is not of this project."""
    package, *rest = name.split(".")
    if package == "object_detection_configs":
        return "configs"
    return rest[0] if rest and package in ("mobiledets_tf", "tflite_export") else None


def _imports() -> list[tuple[str, str, str]]:
    """(room, room that it imports, place) of every import, at the head of a file or inside a function."""
    found = []
    for path in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module in ("mobiledets_tf.__init__", "tflite_export.__init__"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                # `from mobiledets_tf import files` imports the room `files`.
                of_package = node.module in ("mobiledets_tf", "tflite_export")
                names = [f"{node.module}.{a.name}" for a in node.names] if of_package else [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            rooms = {_room(name) for name in names} - {None, _room(module)}
            found += [(_room(module), room, f"{path.relative_to(ROOT)}:{node.lineno}") for room in rooms]
    return found


def test_every_import_points_downwards():
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    imports = [arrow for arrow in _imports() if (*arrow[:2], arrow[2].partition(":")[0]) != PUBLIC_NAME]
    assert len(imports) == len(_imports()) - 1
    assert {room for arrow in imports for room in arrow[:2]} <= floor.keys()
    upwards = [
        f"{place}: {one} imports {other}"
        for one, other, place in imports
        if floor[other] >= floor[one] and floor[one] > 0
    ]
    assert not upwards
    assert not [arrow for arrow in imports if floor[arrow[0]] == 0 and floor[arrow[1]] > 0]


@pytest.mark.parametrize("module", ["architecture", "errors", "files", "cli.app", "cli.describe"])
def test_import_leaves_tensorflow_out(module):
    heavy = ("tensorflow", "tf_keras", "numpy")
    code = f"import sys, mobiledets_tf.{module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
