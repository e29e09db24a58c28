"""Options and flags are the same: names, defaults, bounds, allowed words; and examples are right."""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from unittest.mock import MagicMock

import pytest

import mobiledets_tf
from mobiledets_tf import api, architecture, latency, models
from mobiledets_tf.errors import InputError
from tflite_export.detector import Detector

README = Path(__file__).resolve().parents[2] / "README.md"
# Command -> options, and flags of the command that are no option: what it prints, or another mode.
PAIRS = [
    ("benchmark", api.BenchmarkOptions, {"format"}),
    ("compile", api.CompileOptions, {"format"}),
    ("detect", api.DetectOptions, {"format"}),
    ("export", api.ExportOptions, set()),
    ("import_weights", api.ImportOptions, {"format"}),
    ("quickstart", api.QuickstartOptions, set()),
    ("rank", api.RankOptions, set()),
    ("search", api.SearchOptions, set()),
    ("train", api.TrainOptions, {"mode"}),
    ("data", api.SampleOptions, None),
    ("data", api.DataOptions, None),
    ("data", api.ConvertOptions, None),
    ("latency", api.MeasureOptions, None),
]
# Fields whose flag has no value of its own, because it serves several modes of the command.
OTHER_DEFAULTS = {
    (api.SampleOptions, "image_size"),
    (api.MeasureOptions, "networks"),
    (api.MeasureOptions, "seed"),
    (api.MeasureOptions, "device"),
    (api.MeasureOptions, "model"),
}
FUNCTIONS = [getattr(api, name) for name in api.__all__ if name[0].islower()]


def _plain(value):
    """A list of texts of numbers and a tuple of numbers alike; nothing given is None."""
    if isinstance(value, (list, tuple)):
        return tuple(float(item) if isinstance(item, (str, int, float)) else item for item in value) or None
    return value


@pytest.mark.parametrize(
    ("command", "kind", "others"), PAIRS, ids=lambda value: getattr(value, "__name__", "")
)
def test_options_are_the_flags(command, kind, others):
    flags = importlib.import_module(f"mobiledets_tf.cli.{command}").FLAGS
    flags.unparse_flags()
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if others is not None:
        assert set(flags) == (fields.keys() - {"evaluate"}) | others
    for name, field in fields.items():
        if name == "evaluate":
            continue
        flag = flags[name]
        required = any("must have a value" in str(v.message) for v in flag.validators)
        missing = field.default is dataclasses.MISSING
        assert not required or missing, name
        if (kind, name) in OTHER_DEFAULTS:
            continue
        assert missing or _plain(field.default) == _plain(flag.default), name
        parser = flag.parser
        for ours, theirs in (("low", "lower_bound"), ("high", "upper_bound")):
            if (bound := getattr(parser, theirs, None)) is not None:
                assert field.metadata[ours] == bound, name
        if words := getattr(parser, "enum_values", None):
            allowed = set(field.metadata["choices"])
            assert allowed == set(words) - ({"madds"} if kind is api.MeasureOptions else set()), name


def test_every_field_is_described():
    for _, kind, _ in PAIRS:
        described = " ".join(inspect.getdoc(base) or "" for base in kind.__mro__)
        if kind is api.SearchOptions:  # Those that are settings of the same name are described there.
            from mobiledets_tf.search.settings import Search

            described += inspect.getdoc(Search)
        for field in dataclasses.fields(kind):
            assert re.search(rf"\b{field.name}\b", described), (kind, field.name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: api.TrainOptions(model_dir="x", steps=0), "--steps=0; allowed: 1 or more"),
        (lambda: api.TrainOptions(model_dir="x", preset="finetun"), "did you mean 'finetune'"),
        (lambda: api.ExportOptions(output_dir="x", max_ap_drop=float("nan")), "--max_ap_drop=nan"),
        (lambda: api.ExportOptions(output_dir="x", max_detections=1001), "allowed: 1 to 1000"),
        (
            lambda: api.DetectOptions(model="x", images="y", threads="two"),
            "--threads='two'; allowed: numbers",
        ),
        (lambda: api.QuickstartOptions(device="toaster"), "--device=toaster"),
        (lambda: _search(beta=0.5), "--beta=0.5; allowed: at most 0"),
        (lambda: _search(latency_target=0).check(), "allowed: numbers above 0"),
        (lambda: _search(latency_target=float("nan")).check(), "allowed: numbers above 0"),
        (lambda: _search(latency_model=("a", "b")).check(), "2 times, --latency_target 1 times"),
        (lambda: _search(kernel_sizes=(7,)).space(), "kernel"),
        (lambda: _search(distribution_strategy="tpu").check(), "requires --tpu"),
        (lambda: api.RankOptions(search_dir="x", model_dir="y", seed=2**31 - 1), "the largest allowed seed"),
        (lambda: api.describe("edgtpu"), "did you mean 'edgetpu'"),
        (lambda: api.train(api.TrainOptions(model_dir="none")), "--architecture or --pipeline_config"),
        (lambda: api.export(api.ExportOptions(output_dir="x")), "--architecture is required"),
        (lambda: api.compile(api.CompileOptions(model="none.tflite")), "cannot read model"),
        (lambda: api.benchmark(api.BenchmarkOptions(model="none.tflite")), "cannot read model"),
        (lambda: api.detect(api.DetectOptions(model="none", images="none")), "--images=none does not exist"),
        (lambda: api.import_weights(api.ImportOptions(weights="none", output_dir="x")), "does not exist"),
        (lambda: api.check_data(api.DataOptions(images="none")), "is not a folder"),
        (lambda: api.quickstart(api.QuickstartOptions(data="none")), "this folder does not exist"),
        (lambda: api.measure_latency(api.MeasureOptions(device="csv", output="x")), "timed elsewhere"),
    ],
)
def test_wrong_input_is_one_line(make, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        make()
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def _search(**changed):
    given = {"train_data": "x", "model_dir": "y", "latency_model": "m.json", "latency_target": 1.0}
    return api.SearchOptions(**given | changed)


def test_presets_fill_what_is_not_given():
    small, tunas = _search().with_preset(), _search(preset="tunas", steps=7).with_preset()
    assert (small.algorithm, small.steps, small.reward, small.quality) == ("evolution", 480, "band", "loss")
    assert (tunas.algorithm, tunas.steps, tunas.reward, tunas.quality) == ("tunas", 7, "abs", "AP")
    assert not any(getattr(full, name) is None for full in (small, tunas) for name in ("region", "published"))


def test_paths_may_be_objects():
    options = _search(latency_model=Path("m.json"), candidates=[Path("a.json")], model_dir=Path("y"))
    assert (options.latency_model, options.candidates, options.model_dir) == (("m.json",), ("a.json",), "y")


def _heavy(code):
    heavy = ("tensorflow", "tf_keras", "cv2", "matplotlib", "sklearn", "numpy")
    code = f"import sys; {code}; print(*[m for m in {heavy} if m in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()


def test_imports_stay_light():
    assert _heavy("import mobiledets_tf") == []
    assert _heavy("import mobiledets_tf; mobiledets_tf.api.TrainOptions(model_dir='x')") == ["numpy"]
    with pytest.raises(AttributeError, match="no attribute 'training'"):
        _ = mobiledets_tf.training


def test_packages_of_the_same_names_are_packages():
    for name in ("search", "quickstart", "doctor"):
        assert inspect.ismodule(importlib.import_module(f"mobiledets_tf.{name}"))
        assert inspect.ismodule(getattr(mobiledets_tf, name))


def _examples(documented):
    found = re.findall(r"( *```python\n.*?)```", inspect.getdoc(documented) or "", re.DOTALL)
    return [textwrap.dedent(block).partition("\n")[2] for block in found]


@pytest.fixture
def rehearsed(monkeypatch):
    """The API with functions that check their arguments and do nothing."""
    called = []

    def stand_in(function):
        signature = inspect.signature(function)

        def call(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                kind = signature.parameters[name].annotation
                assert not inspect.isclass(kind) or isinstance(value, kind), (function, name)
            called.append(function.__name__)
            return MagicMock()

        return call

    stub = MagicMock(**{name: getattr(api, name) for name in api.__all__ if name.endswith("Options")})
    for function in FUNCTIONS:
        setattr(stub, function.__name__, stand_in(function))
    monkeypatch.setattr(mobiledets_tf, "api", stub)
    return called


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_function_has_an_example_that_runs(function, rehearsed):
    (example,) = _examples(function)
    exec(example, {})
    assert function.__name__ in rehearsed


def test_the_example_of_the_module_and_of_the_readme_run(rehearsed):
    (example,) = _examples(api)
    exec(example, {})
    assert rehearsed == ["convert_data", "train", "export"]
    (example,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
        if "import api" in block
    )
    exec(example, {})
    assert len(rehearsed) > 3


@pytest.mark.parametrize(
    "documented",
    [
        models.build_backbone,
        models.build_detector,
        models.decode_detections,
        architecture.describe,
        architecture.load,
        latency.load,
        Detector,
    ],
    ids=lambda documented: documented.__name__,
)
def test_what_users_call_besides_has_an_example(documented, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = _examples(documented)
    if documented is Detector:  # Needs a file; the same lines in README.md are run on one.
        compile(example, "example", "exec")
    else:
        exec(example, {})
