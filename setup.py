"""Installs MobileDets-TF; constraints.txt pins exact versions of all dependencies."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# The TensorFlow packages are pinned: compat.py repairs exactly these versions.
REQUIRES = [
    "tensorflow==2.20.0",
    "tf_keras==2.20.1",
    "tf-models-official==2.20.0",
    "tf-models-research-object-detection==2.8.0.post1",
    "tensorflow-model-optimization==0.8.1",
    "ai-edge-litert==2.3.0",
    "numpy>=2.0",
    "absl-py",
    "defusedxml",
    "matplotlib",
    "pillow",
    "opencv-python-headless",
    "pycocotools>=2.0.8",
    "pyyaml",
    "scikit-learn",
    "tqdm",
]

EXTRAS = {
    "gpu": ["tensorflow[and-cuda]==2.20.0"],
    "hexagon": ["onnxruntime==1.32.0", "onnxruntime-qnn==2.7.0", "onnx==1.23.2", "tf2onnx==1.17.0"],
    "ethos_u": ["ethos-u-vela==5.2.0"],
    "benchmark": ["torch==2.13.0"],
    "dev": [
        "pytest",
        "pytest-cov",
        "pytest-xdist",
        "ruff",
        "mypy",
        "nbclient",
        "ipykernel",
        "pdoc",
        "globox",
    ],
}
# The tests cover every device whose tools run without its hardware. Those of Hexagon need Python 3.11.
EXTRAS["dev"] += [f"{requirement}; python_version >= '3.11'" for requirement in EXTRAS["hexagon"]]
EXTRAS["dev"] += EXTRAS["ethos_u"]

# Console script mobiledets-NAME runs mobiledets_tf.cli.NAME.
COMMANDS = [
    "benchmark",
    "compile",
    "data",
    "describe",
    "detect",
    "doctor",
    "export",
    "import",
    "latency",
    "quickstart",
    "rank",
    "search",
    "train",
]
# Modules of commands whose name is a Python keyword.
MODULES = {"import": "import_weights"}


def version() -> str:
    text = (ROOT / "mobiledets_tf" / "version.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)[1]


def long_description() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="mobiledets-tf",
    version=version(),
    description="MobileDets in TensorFlow/Keras: from architecture search to the chip",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    author="MobileDets-TF maintainers",
    license="Apache-2.0",
    # The address that README.md and the notebooks install from.
    url="https://github.com/mobiledets-tf/mobiledets-tf",
    project_urls={
        "Paper (MobileDets)": "https://arxiv.org/abs/2004.14525",
        "Paper (TuNAS)": "https://arxiv.org/abs/2008.06120",
    },
    keywords=[
        "object detection",
        "neural architecture search",
        "MobileDets",
        "TuNAS",
        "TensorFlow",
        "TensorFlow Lite",
        "LiteRT",
        "Edge TPU",
        "quantization",
    ],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.10,<3.13",
    packages=find_packages(
        include=[
            "mobiledets_tf",
            "mobiledets_tf.*",
            "tflite_export",
            "tflite_export.*",
            "object_detection_configs",
        ]
    ),
    # Files that commands read at run time.
    package_data={
        "mobiledets_tf": ["py.typed", "latency/models/*.json"],
        "tflite_export": ["py.typed"],
        "object_detection_configs": ["*.config"],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            f"mobiledets-{name} = mobiledets_tf.cli.{MODULES.get(name, name)}:run" for name in COMMANDS
        ]
    },
)
