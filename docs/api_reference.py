"""Writes the API reference: `python docs/api_reference.py OUTPUT_DIR [MODULE ...]`."""

import importlib
import pkgutil
import sys
from pathlib import Path

import pdoc

# The commands say it themselves: --help.
EVERYTHING = ("mobiledets_tf", "!mobiledets_tf.cli", "tflite_export", "object_detection_configs")


def main(output_dir: str, *modules: str) -> None:
    """Renders the modules and all below them."""
    for name in modules or EVERYTHING:
        if not name.startswith("!"):
            _show_submodules(name)
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*(modules or EVERYTHING), output_directory=Path(output_dir))


def _show_submodules(name: str) -> None:
    """pdoc takes `__all__` for the list of submodules; ours name functions and classes."""
    module = importlib.import_module(name)
    vars(module).pop("__all__", None)
    for found in pkgutil.iter_modules(getattr(module, "__path__", []), f"{name}."):
        if found.ispkg:
            _show_submodules(found.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
