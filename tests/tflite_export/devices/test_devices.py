"""The static check and measured latency."""

import re
from pathlib import Path

import numpy as np
import pytest

from tflite_export import devices
from tflite_export.devices import edgetpu, edgetpu_ops, host_cpu, timing
from tflite_export.tflite import model_file
from tflite_export.tflite.model_file import ModelFile, Operator, Tensor


def tensor(dtype="INT8", shape=(1, 8, 8, 4), **fields):
    defaults = {"name": "t", "is_dynamic": False, "size": 0, "scales": (0.1,), "zero_points": (0,)}
    return Tensor(dtype=dtype, shape=shape, **(defaults | fields))


def constant(*values, shape=None):
    return tensor("INT32", shape or (len(values),), size=4 * len(values) or 4, values=values)


def reasons(name, *tensors, version=1, options=None, is_custom=False):
    tensors = tensors or (tensor(),)
    op = Operator(3, name, version, is_custom, tensors, tensors[:1], options)
    conv = Operator(0, "CONV_2D", 1, False, (tensor(),), (tensor(),))
    found = edgetpu.check(ModelFile(1, 1, (conv, op), (), (), {}))
    return [finding.reason for finding in found if finding.op_index == 3]


class Options:
    def __init__(self, **fields):
        self.__dict__.update(fields)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (reasons("HARD_SWISH"), "HARD_SWISH is not supported"),
        (reasons("Atan", is_custom=True), "custom operation Atan"),
        (reasons("CONV_2D", version=6), "version 6 of CONV_2D; allowed: at most 5"),
        (reasons("ADD", tensor("FLOAT32")), "float32"),
        (reasons("ADD", tensor("INT16")), "int16"),
        (reasons("ADD", tensor(scales=())), "without a scale"),
        (reasons("ADD", tensor(is_dynamic=True)), "dynamic"),
        (reasons("ADD", tensor(shape=(2, 8, 8, 4))), "2x8x8x4"),
        (reasons("MAX_POOL_2D", options=Options(fusedActivationFunction=1)), "fused activation"),
        (reasons("CONV_2D", options=Options(dilationHFactor=1, dilationWFactor=2)), "dilation 1x2"),
        (reasons("CONCATENATION", tensor(), tensor(), tensor(size=4)), "a constant among 3 inputs"),
        (reasons("FULLY_CONNECTED", options=Options(weightsFormat=1)), "shuffled"),
        (reasons("FULLY_CONNECTED", tensor(shape=(1, 6, 4))), "shape 1x6x4"),
        (reasons("STRIDED_SLICE", options=Options(ellipsisMask=1, newAxisMask=0)), "mask"),
        (reasons("STRIDED_SLICE", tensor(), *[constant(0)] * 2, constant(1, 2)), "strides (1, 2)"),
        (reasons("MEAN", tensor(), constant(0)), "reduces the batch"),
        (reasons("MEAN", tensor(shape=(1, 8, 8, 6)), constant(-1)), "mean over 6 channels"),
        (reasons("PAD", tensor(), constant(0, 1, 0, 0, 0, 0, 0, 0)), "pads the batch"),
        (reasons("PACK", tensor(), tensor(), options=Options(axis=0)), "packs along the batch"),
        (reasons("PRELU", tensor(), constant(shape=(8, 8, 4))), "slope of shape 8x8x4"),
        (reasons("SOFTMAX", tensor(shape=(1, 8, 4))), "input of shape 1x8x4"),
        (reasons("CONV_2D", tensor(), tensor()), "weights are not constant"),
        (reasons("SOFTMAX", tensor(shape=(1, 20000))), "20000 elements"),
    ],
)
def test_one_reason_for_one_fault(found, words):
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("name", ["ADD", "LOGISTIC", "RESHAPE", "DEQUANTIZE"])
def test_supported_operations_pass(name):
    assert reasons(name) == []


def test_the_list_of_operations_is_the_tables(shared):
    """Every operation that the reference table names in our spelling is in the list."""
    rows = (shared / "reference" / "edgetpu_supported_ops.txt").read_text().splitlines()
    names = [word for row in rows if "|" in row and "[" in row for word in row.split("|")[0].split(", ")]
    spelled = {name.strip().replace("_", "").upper() for name in names}
    ours = {name.replace("_", "") for name in edgetpu.SUPPORTED_OPS}
    aliases = {"AVERAGEPOOL2D", "CONV2D", "DEPTHWISECONV2D", "LSTM", "MAXPOOL2D", "RELUN1TO1"}
    assert len(spelled) > 30
    assert spelled - ours - aliases == set()


def test_each_row_of_the_table_has_a_source_and_is_documented_with_it():
    page = (Path(edgetpu_ops.__file__).parents[2] / "docs" / "edgetpu_operations.md").read_text()
    assert edgetpu_ops.COMPILER in page
    for letter, text in edgetpu_ops.SOURCES.items():
        assert f"- **{letter}**: {text}." in page
    assert {letter for row in edgetpu_ops.ROWS.values() for letter in row.sources} == set(edgetpu_ops.SOURCES)
    listed = re.findall(r"^\| ([A-Z0-9_]+) \| (\d+) \| ([A-E, ]+) \| (\d*) \|$", page, re.MULTILINE)
    rows = {name: (row.version, row.sources, row.runtime) for name, row in edgetpu_ops.ROWS.items()}
    assert rows == {
        name: (int(version), sources.replace(", ", ""), int(runtime) if runtime else None)
        for name, version, sources, runtime in listed
    }
    unknown = [name for name, row in edgetpu_ops.ROWS.items() if not row.has_limits]
    assert f"- Limitations of {', '.join(unknown[:-1])} and {unknown[-1]}:" in page


def test_operations_that_came_with_later_compilers_pass_up_to_their_version():
    weights = constant(shape=(4, 2, 2, 4))
    assert reasons("TRANSPOSE_CONV", constant(shape=(4,)), weights, tensor()) == []
    [found] = reasons("TRANSPOSE_CONV", constant(shape=(4,)), tensor(), tensor())
    assert "weights are not constant" in found
    for name, newest in (("TRANSPOSE", 5), ("RSQRT", 2), ("SUM", 2), ("SQUARED_DIFFERENCE", 2)):
        for version in (newest, newest + 1):
            op = Operator(0, name, version, False, (tensor(),), (tensor(),))
            found = edgetpu.check(ModelFile(1, 1, (op,), (), (), {}))
            assert [each.reason for each in found] == (
                [] if version == newest else [f"version {version} of {name}; allowed: at most {newest}"]
            )


def test_several_subgraphs_and_no_operation_are_findings_of_the_file():
    found = edgetpu.check(ModelFile(1, 2, (), (), (), {}))
    assert [finding.op_index for finding in found] == [None, None]


def chain(*names):
    """A model of operations one after the other."""
    tensors = [tensor(name=str(i)) for i in range(len(names) + 1)]
    ops = [Operator(i, name, 1, False, (tensors[i],), (tensors[i + 1],)) for i, name in enumerate(names)]
    return ModelFile(1, 1, tuple(ops), (), (), {})


@pytest.mark.parametrize(
    ("names", "mapped", "subgraphs", "first"),
    [
        (("CONV_2D", "ADD"), 2, 1, None),
        (("CONV_2D", "ADD", "DEQUANTIZE"), 2, 1, 2),
        (("CONV_2D", "HARD_SWISH", "CONV_2D", "HARD_SWISH", "CONV_2D", "ADD"), 1, 3, 1),
        (("HARD_SWISH", "CONV_2D", "ADD"), 2, 1, 0),
        (("HARD_SWISH",), 0, 0, 0),
    ],
)
def test_subgraphs_that_the_compiler_would_make(names, mapped, subgraphs, first):
    found = edgetpu.coverage(chain(*names))
    assert (found["operations"], found["mapped"], found["subgraphs"]) == (len(names), mapped, subgraphs)
    assert (found["first_on_cpu"] or {}).get("op_index") == first


def test_a_branch_beside_an_unsupported_operation_stays_in_the_first_subgraph():
    a, b, c, d, e = (tensor(name=name) for name in "abcde")
    ops = (
        Operator(0, "CONV_2D", 1, False, (a,), (b,)),
        Operator(1, "HARD_SWISH", 1, False, (b,), (c,)),
        Operator(2, "ADD", 1, False, (b,), (d,)),
        Operator(3, "MUL", 1, False, (c, d), (e,)),
    )
    found = edgetpu.coverage(ModelFile(1, 1, ops, (), (), {}))
    assert (found["mapped"], found["subgraphs"]) == (2, 2)
    assert any("2 Edge TPU subgraphs" in f.reason for f in edgetpu.check(ModelFile(1, 1, ops, (), (), {})))


def test_our_int8_file_is_ready(tflite):
    assert edgetpu.check(model_file.read(tflite("int8", "uint8"))) == []


def test_a_float_file_is_not_and_each_finding_names_its_block(tflite, network):
    model = model_file.read(tflite("float", "float"))
    found = edgetpu.check(model)
    assert all("float32" in finding.reason for finding in found)
    assert {name for name, _ in network.named_layers()} <= {finding.block for finding in found}
    assert found[0].to_dict() | {"tensor": "", "reason": ""} == {
        "op_index": 0,
        "op": "CONV_2D",
        "tensor": "",
        "block": "stem",
        "reason": "",
    }


def test_a_float_input_alone_is_found(tflite):
    (finding,) = edgetpu.check(model_file.read(tflite("int8", "float")))
    assert (finding.op, finding.op_index) == ("QUANTIZE", 0)


def test_host_latency_is_measured(tflite):
    latency = host_cpu.measure(tflite("int8", "uint8"), threads=1, runs=20, seconds=0)
    fields = latency.to_dict()
    assert (fields["kind"], fields["device"], fields["runs"]) == ("measured", "host_cpu", 20)
    times = [fields[name] for name in ("min_ms", "p10_ms", "p50_ms", "p90_ms", "max_ms")]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[0] <= fields["median_ms"] <= times[-1]
    assert fields["statistic"] == "median of the quietest 4"
    assert fields["warm_up_runs"] == timing.WARM_UP_RUNS
    assert host_cpu.measure(tflite("int8", "uint8"), runs=1).details["runs"] > 1


def test_a_latency_is_that_of_the_quietest_burst():
    """What else the machine does for a while, even most of the time, is not the network's."""
    times = np.full(100, 2.0)
    times[30:50] = [1.0, 1.1, 1.2, 1.3, 9.0] * 4
    assert timing.quietest(times) == (pytest.approx(1.2), 10)
    assert timing.quietest(np.array([3.0, 1.0, 2.0])) == (1.0, 1)
    assert timing.quietest(np.array([7.0] * 10 + [5.0])) == (7.0, 2)


def test_every_named_device_has_a_module_that_answers():
    assert all(callable(devices.load(name).measure) for name in devices.MEASURING)
    assert all(callable(devices.load(name).check) for name in devices.COMPILING)
