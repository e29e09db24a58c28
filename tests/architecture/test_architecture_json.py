"""Architecture files: round trip, and every kind of damage."""

import copy
import json
import random

import pytest

from mobiledets_tf import architecture
from mobiledets_tf.errors import InputError


@pytest.fixture
def data():
    return architecture.to_dict(architecture.load("edgetpu"))


def _deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def _refusal(data) -> str:
    """The message with which `data` is refused: always one short line."""
    with pytest.raises(InputError) as caught:
        architecture.from_dict(data, "file X")
    message = str(caught.value)
    assert message.startswith("file X: ")
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("name", architecture.PUBLISHED)
def test_round_trip_through_a_file(name, tmp_path):
    network = architecture.load(name)
    architecture.save(network, tmp_path / "network.json")
    loaded = architecture.load(tmp_path / "network.json")
    assert loaded == network
    assert architecture.describe(loaded) == architecture.describe(network)


def test_a_file_says_its_schema_version_and_holds_plain_json(data):
    assert data["schema_version"] == 1
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_origin_survives(data):
    data["origin"] = {"search_space": "ibn", "space_hash": "ab12", "decisions": [3, 0, 1]}
    assert architecture.from_dict(data).origin == architecture.Origin("ibn", "ab12", (3, 0, 1))
    assert architecture.to_dict(architecture.from_dict(data)) == data


DAMAGE = {
    # path into the JSON, new value -> words that the message must hold
    "no object": ((), 7, ["a JSON object is needed", "7"]),
    "null": ((), None, ["a JSON object is needed", "None"]),
    "list": ((), [], ["a JSON object is needed"]),
    "future schema": (("schema_version",), 2, ["schema_version is 2", "allowed: 1"]),
    "schema as float": (("schema_version",), 1.0, ["schema_version is 1.0"]),
    "schema as bool": (("schema_version",), True, ["schema_version is True"]),
    "unknown key": (("activatoin",), "relu6", ["unknown key 'activatoin'", "mean 'activation'?"]),
    "endless unknown key": (("k" * 100_000,), 1, ["unknown key"]),
    "name of wrong type": (("name",), 3, ["name is 3"]),
    "empty name": (("name",), "", ["name is ''"]),
    "name with a line break": (("name",), "a\nb", ["name is 'a\\nb'"]),
    "name with a lone surrogate": (("name",), "a\ud800", ["name is"]),
    "endless name": (("name",), "n" * 100_000, ["name is"]),
    "unknown activation": (("activation",), "relu", ["unknown activation 'relu'", "mean 'relu6'?"]),
    "activation of wrong type": (("activation",), {"a": 1}, ["unknown activation", "relu6, hard_swish"]),
    "NaN ratio": (("se_ratio",), float("nan"), ["se_ratio is nan"]),
    "infinite ratio": (("se_ratio",), float("inf"), ["se_ratio is inf"]),
    "zero ratio": (("se_ratio",), 0, ["se_ratio is 0"]),
    "ratio as bool": (("se_ratio",), True, ["se_ratio is True"]),
    "stem of a wrong op": (("stem", "op"), "ibn", ["stem", "unknown op 'ibn'", "allowed: conv"]),
    "stem is no object": (("stem",), [1], ["stem", "a layer is an object"]),
    "stem with residual": (("stem", "residual"), True, ["stem", "residual"]),
    "blocks of wrong type": (("blocks",), "seven", ["blocks is 'seven'", "a list"]),
    "no blocks": (("blocks",), [], ["0 blocks", "allowed: 7"]),
    "empty block": (("blocks", 3), [], ["block 4", "no layer"]),
    "block of wrong type": (("blocks", 3), None, ["block 4 is None"]),
    "endless block": (("blocks", 3), [None] * 1000, ["block 4 has 1000 layers"]),
    "layer of wrong type": (("blocks", 3, 1), 5, ["block 4 layer 2", "a layer is an object"]),
    "unknown op": (("blocks", 1, 0, "op"), "fuse", ["block 2 layer 1", "unknown op 'fuse'", "mean 'fused'?"]),
    "conv outside the stem": (("blocks", 1, 0, "op"), "conv", ["block 2 layer 1", "unknown op 'conv'"]),
    "op of wrong type": (("blocks", 1, 0, "op"), ["ibn"], ["block 2 layer 1", "with the key 'op'"]),
    "filters as text": (("blocks", 1, 0, "filters"), "16", ["block 2 layer 1", "filters is '16'"]),
    "filters as float": (("blocks", 1, 0, "filters"), 16.0, ["block 2 layer 1", "filters is 16.0"]),
    "filters as bool": (("blocks", 1, 0, "filters"), True, ["block 2 layer 1", "filters is True"]),
    "filters NaN": (("blocks", 1, 0, "filters"), float("nan"), ["block 2 layer 1", "filters is nan"]),
    "no filters": (("blocks", 1, 0, "filters"), 0, ["filters is 0", "from 1 to 8192"]),
    "too many filters": (("blocks", 1, 0, "filters"), 10**9, ["filters is 1000000000"]),
    "endless integer": (("blocks", 1, 0, "filters"), 10**5000, ["block 2 layer 1", "filters is"]),
    "deep nesting": (("blocks", 1, 0, "filters"), _deep(900), ["block 2 layer 1", "filters is [["]),
    "even kernel": (("blocks", 1, 0, "kernel_size"), 4, ["kernel_size is 4", "1, 3, 5 or 7"]),
    "kernel as float": (("blocks", 1, 0, "kernel_size"), 3.0, ["kernel_size is 3.0"]),
    "kernel as bool": (("blocks", 1, 1, "kernel_size"), True, ["kernel_size is True"]),
    "kernel as list": (("blocks", 1, 0, "kernel_size"), [3, 3], ["kernel_size is [3, 3]"]),
    "strides 3": (("blocks", 1, 0, "strides"), 3, ["block 2 layer 1", "strides is 3", "1 or 2"]),
    "strides as bool": (("blocks", 0, 0, "strides"), True, ["strides is True"]),
    "lost stride": (("blocks", 1, 0, "strides"), 1, ["C4 has stride 8", "allowed: 16"]),
    "stride after C4": (("blocks", 6, 0, "strides"), 2, ["C5 has stride 64", "allowed: 32"]),
    "residual with strides 2": (("blocks", 1, 0, "residual"), True, ["block 2 layer 1", "needs strides 1"]),
    "residual with unequal widths": (("blocks", 4, 0, "residual"), True, ["block5_layer1", "72 in"]),
    "residual as number": (("blocks", 4, 1, "residual"), 1, ["residual is 1", "true or false"]),
    "expansion 1": (("blocks", 1, 0, "expansion"), 1, ["expansion is 1", "from 2 to 64"]),
    "expansion of a tucker": (("blocks", 0, 0, "expansion"), 4, ["block 1 layer 1", "key 'expansion'"]),
    "tucker ratio": (("blocks", 0, 0, "in_ratio"), 1.5, ["in_ratio is 1.5", "at most 1"]),
    "extra levels of wrong type": (("extra_filters",), {"a": 1}, ["extra_filters is {'a': 1}"]),
    "three extra levels": (("extra_filters",), [512, 256, 256], ["extra_filters", "four integers"]),
    "extra level of one channel": (("extra_filters",), [512, 256, 256, 1], ["extra_filters", "2 to 8192"]),
    "origin of wrong type": (("origin",), "ibn", ["origin: a JSON object is needed"]),
    "origin without hash": (("origin",), {"search_space": "a", "decisions": []}, ["'space_hash' is missing"]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage, data):
    path, value, words = DAMAGE[damage]
    message = _refusal(_replaced(data, path, value))
    for word in words:
        assert word in message


@pytest.mark.parametrize("decisions", ["12", [1.0], [True], [-1], [None], [10**5000], {}, [[]]])
def test_bad_decisions(decisions, data):
    data["origin"] = {"search_space": "ibn", "space_hash": "ab12", "decisions": decisions}
    assert "decisions" in _refusal(data)


def test_each_key_is_needed(data):
    for path in _paths(data):
        if isinstance(path[-1], str):
            damaged = copy.deepcopy(data)
            del _at(damaged, path[:-1])[path[-1]]
            message = _refusal(damaged)
            if path[-1] != "op":
                assert f"key {path[-1]!r} is missing" in message


def test_seeded_mutations_never_raise_anything_else(data):
    """Any value anywhere: refused with one line, or a valid network with figures."""
    chance = random.Random(20)
    numbers = [-1, 0, 1, 2, 3, 5, 8, 16, 72, 1.0, 0.5, float("nan"), float("-inf"), 10**400]
    words = ["", "ibn", "tucker", "conv", "relu6", "\ud800"]
    junk = [None, True, False, *numbers, *words, [], {}, [[]], {"op": "ibn"}, _deep(300)]
    paths = list(_paths(data))
    refused = 0
    for _ in range(3000):
        damaged = copy.deepcopy(data)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            _mutate(damaged, chance.choice(paths), chance.choice(junk), chance)
        try:
            network = architecture.from_dict(damaged)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
            assert len(str(error)) < 400
        else:
            assert architecture.from_dict(architecture.to_dict(network)) == network
            assert architecture.describe(network)["params"] > 0
    assert 1500 < refused < 3000  # Both outcomes were met.


def test_names_that_are_neither_published_nor_files():
    with pytest.raises(InputError, match=r"unknown architecture 'edgtpu' \(did you mean 'edgetpu'\?\)"):
        architecture.load("edgtpu")
    with pytest.raises(InputError, match="'missing.json' does not exist"):
        architecture.load("missing.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 5000, "\ufeff{}", "\0", "nan"])
def test_files_that_are_not_json(text, tmp_path):
    path = tmp_path / "network.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"architecture file '.*network.json'") as caught:
        architecture.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("levels", range(800, 1000, 20))
def test_nesting_just_below_the_parser_limit(levels, data, tmp_path):
    """What the parser still reads must not overflow the stack in a message."""
    path = tmp_path / "network.json"
    path.write_text(json.dumps(data).replace('"relu6"', "[" * levels + "]" * levels), encoding="utf-8")
    with pytest.raises(InputError, match="network.json"):
        architecture.load(path)


def test_binary_and_folder(tmp_path):
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="not UTF-8"):
        architecture.load(tmp_path / "binary.json")
    with pytest.raises(InputError, match="cannot read architecture file"):
        architecture.load(tmp_path)


def test_a_path_of_any_length():
    for name in ("n" * 5000, "n" * 5000 + ".json", "a\0.json"):
        with pytest.raises(InputError):
            architecture.load(name)


def _at(data, path):
    for key in path:
        data = data[key]
    return data


def _replaced(data, path, value):
    if not path:
        return value
    damaged = copy.deepcopy(data)
    _at(damaged, path[:-1])[path[-1]] = value
    return damaged


def _paths(data, prefix=()):
    """Paths of all values below the root."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield (*prefix, key)
        yield from _paths(value, (*prefix, key))


def _mutate(data, path, value, chance: random.Random) -> None:
    """Replaces, deletes, adds or doubles what is at `path`, if it is still there."""
    try:
        parent = _at(data, path[:-1])
        action = chance.choice(("replace", "replace", "replace", "delete", "double"))
        if action == "replace":
            parent[path[-1]] = value
        elif action == "delete":
            del parent[path[-1]]
        elif isinstance(parent, list):
            parent.insert(path[-1], copy.deepcopy(parent[path[-1]]))
        else:
            parent[chance.choice(("op", "filters", "x"))] = value
    except (KeyError, IndexError, TypeError, AttributeError):
        pass  # An earlier mutation took the place away.
