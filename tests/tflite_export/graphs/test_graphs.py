"""Graphs written directly: equal to a converted file in operations, runnable, read back exactly."""

import dataclasses

import numpy as np
import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.architecture import InvertedBottleneckSpec
from mobiledets_tf.errors import InputError
from tflite_export.devices import block_times, edgetpu, ethos_u, hexagon, host_cpu
from tflite_export.graphs import Settings, block_graph, network_graph
from tflite_export.graphs.cut import cut
from tflite_export.graphs.read_tflite import read_graph
from tflite_export.graphs.write_tflite import to_tflite
from tflite_export.tflite import runtime
from tflite_export.tflite.model_file import read

SMALL = Settings((96, 96), 3)


@pytest.fixture(scope="module")
def written(tmp_path_factory, network):
    path = tmp_path_factory.mktemp("graphs") / "network.tflite"
    path.write_bytes(to_tflite(network_graph(network, SMALL)))
    return path


def test_equal_in_operations_to_a_converted_file(network, tflite):
    """Every operation with its shapes, kernel, stride and fused activation."""
    converted = read_graph(tflite("int8", "int8", "none"))
    assert network_graph(network, SMALL).signature() == converted.signature()


@pytest.mark.parametrize("name", ["cpu", "edgetpu", "dsp", "gpu"])
def test_multiply_adds_are_those_of_the_architecture(name):
    network = architectures.load(name)
    convolutions = architectures.describe(network)["madds"]
    assert network_graph(network).madds() == convolutions


def test_the_file_runs_and_is_ready_for_the_edge_tpu(written):
    interpreter = runtime.open_model(written)
    image = np.random.default_rng(0).integers(-128, 128, (1, 96, 96, 3)).astype(np.int8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    scores = interpreter.get_tensor(interpreter.get_output_details()[1]["index"])
    assert scores.std() > 1
    assert edgetpu.check(read(written)) == []


def test_reading_gives_the_graph_back(written, network):
    ours, again = network_graph(network, SMALL), read_graph(written)
    assert again.signature() == ours.signature()
    for node, other in zip(ours.nodes, again.nodes, strict=True):
        if node.weights:
            np.testing.assert_array_equal(node.weights.kernel, other.weights.kernel)
            np.testing.assert_array_equal(node.weights.bias, other.weights.bias)


def test_a_float_file_is_refused(tflite):
    with pytest.raises(InputError, match="not int8"):
        read_graph(tflite("float", "float", "none"))


def test_the_backbone_alone_has_no_head(network):
    graph = network_graph(network, dataclasses.replace(SMALL, head="none"))
    assert "CONCATENATION" not in graph.histogram()
    assert [graph.tensors[name].shape[1] for name in graph.outputs] == [6, 3]


def test_seed_and_weights():
    layers = (InvertedBottleneckSpec(16, 3, 1, True, 4),)
    first, same, other = (block_graph(layers, 16, (8, 8), seed=seed) for seed in (1, 1, 2))
    assert to_tflite(first) == to_tflite(same) != to_tflite(other)


def test_hexagon_is_simulated_and_repeats(network):
    pytest.importorskip("onnxruntime_qnn")
    graph = network_graph(network, SMALL)
    first, again = hexagon.measure_graph(graph), hexagon.measure_graph(graph)
    assert first.kind == "simulated"
    assert first.median_ms == again.median_ms > 0


def test_hexagon_takes_a_converted_file_with_post_processing(tflite, network):
    """What remains on the CPU is left out: the time is that of the directly written network."""
    pytest.importorskip("onnxruntime_qnn")
    converted = hexagon.measure(tflite("int8", "uint8")).median_ms
    direct = hexagon.measure_graph(network_graph(network, SMALL)).median_ms
    assert converted == pytest.approx(direct, rel=0.1)


@pytest.mark.parametrize("variant", list(ethos_u.VARIANTS))
def test_vela_maps_every_operation(written, variant):
    pytest.importorskip("ethosu")
    latency = ethos_u.measure(written, variant=variant)
    assert latency.kind == "compiled"
    assert latency.median_ms > 0
    assert latency.details["cpu_operations"] == 0


def test_a_network_is_cut_into_its_blocks(tflite):
    graph = read_graph(tflite("int8", "int8", "none"))
    parts = cut(graph)
    names = list(parts)
    assert names[:2] == ["stem", "block1_layer1"]
    assert sum(name.startswith("predictor") for name in names) == 12
    inside = [node.output for part in parts.values() for node in part.nodes]
    assert len(inside) == len(set(inside))
    # What is left out joins all maps.
    left = {node.op for node in graph.nodes if node.output not in set(inside)}
    assert left <= {"CONCATENATION", "LOGISTIC"}
    assert sum(part.madds() for part in parts.values()) == graph.madds()


def test_blocks_are_timed_alone(tflite, monkeypatch):
    path = tflite("int8", "uint8")
    found = block_times.measure(host_cpu, path, "", runs=2)
    assert list(found) == list(cut(read_graph(path)))
    assert all(milliseconds > 0 for milliseconds in found.values())
    pytest.importorskip("onnxruntime_qnn")
    monkeypatch.setattr(block_times, "cut", lambda graph: dict(list(cut(graph).items())[:2]))
    assert list(block_times.measure(hexagon, path, "v73")) == ["stem", "block1_layer1"]


def test_the_emulated_hexagon_is_near_the_interpreter(tflite, calibration):
    pytest.importorskip("onnxruntime_qnn")
    samples = [sample["image"] for sample in calibration.samples()][:2]
    found = hexagon.emulation_difference(tflite("int8", "uint8"), samples)
    assert found["images"] == 2
    assert len(found["outputs"]) == 2
    # Rounding differs by one step in a layer. The heads of this detector are 8 and 25 times as
    # strong as fresh ones and enlarge that; a trained one differed by 7 at most, 0.4 in the mean.
    assert 0 < found["max_lsb"] <= 80
    assert max(output["mean_lsb"] for output in found["outputs"].values()) < 8


@pytest.mark.parametrize("device", [hexagon, ethos_u])
def test_unknown_variants_are_refused(device, network):
    with pytest.raises(InputError, match="allowed"):
        device.measure_graph(network_graph(network, SMALL), "v99")
