"""Published weights by name, from a server on loopback with archives that the tests make."""

import errno
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from mobiledets_tf import architecture as architectures
from mobiledets_tf.cli import train as command
from mobiledets_tf.compat import tf
from mobiledets_tf.errors import InputError
from mobiledets_tf.weights import tf1_checkpoint, zoo
from mobiledets_tf.weights.imported_weights import Target

FOLDER = "ssdlite_mobiledet_edgetpu_320x320_coco_2020_05_19"
NAME = f"{FOLDER}.tar.gz"
INDEX, DATA = "model.ckpt-400000.index", "model.ckpt-400000.data-00000-of-00001"


def extra_shapes() -> dict[str, tuple[int, ...]]:
    """Kernels of the extra levels under the names of the TF1 API; by them the others are found."""
    found, root = {}, "FeatureExtractor/MobileDetEdgeTPU"
    for level, width in enumerate((512, 256, 256, 128), 2):
        found |= {
            f"{root}/C5_1_Conv2d_{level}_1x1_{width // 2}/weights": (),
            f"{root}/C5_2_Conv2d_{level}_3x3_s2_{width}_depthwise/depthwise_weights": (),
            f"{root}/C5_2_Conv2d_{level}_3x3_s2_{width}/weights": (),
        }
    return found


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> dict[str, bytes]:
    """The files of a TF1 checkpoint of `edgetpu` with 90 classes; all zeros, so that they pack well."""
    target = Target(architectures.load("edgetpu"), 90)
    names, values = [], []
    for conv, parts in tf1_checkpoint._named(target, "MobileDetEdgeTPU", extra_shapes()):
        for part, name in parts.items():
            names.append(name)
            values.append(np.zeros(tf1_checkpoint._shape(conv, part), np.float32))
    prefix = str(tmp_path_factory.mktemp("zoo") / "model.ckpt")
    tf.raw_ops.SaveV2(prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    ends = {INDEX: ".index", DATA: ".data-00000-of-00001"}
    return {name: open(prefix + end, "rb").read() for name, end in ends.items()}


def packed(files: dict[str, bytes | None]) -> bytes:
    """A .tar.gz; None makes a link to /etc/passwd."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if data is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data or b""))
    return buffer.getvalue()


@pytest.fixture(scope="session")
def archive(checkpoint) -> bytes:
    """As the published one is laid out: a float and a quantised training, and more."""
    inside = {f"{FOLDER}/fp32/{name}": data for name, data in checkpoint.items()}
    # Random, so that the archive is not tiny.
    more = np.random.default_rng(0).bytes(200_000)
    others = {f"{FOLDER}/uint8/{INDEX}": b"x", f"{FOLDER}/README": b""}
    return packed({f"{FOLDER}/fp32/model.tflite": more} | inside | others)


class Server:
    """Serves one archive; can cut connections off and counts requests."""

    def __init__(self):
        self.body, self.etag, self.cut_after, self.ranges = b"", '"one"', None, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def answer(self, request) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        first = 0
        if asked and request.headers.get("If-Range") == self.etag:
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {first}-{len(self.body) - 1}/{len(self.body)}")
        else:
            request.send_response(200 if request.path == f"/{NAME}" else 404)
        request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(self.body) - first))
        request.end_headers()
        request.wfile.write(self.body[first : self.cut_after])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    made = Server()
    monkeypatch.setattr(zoo, "ADDRESS", made.address)
    yield made
    made.close()


def left(cache) -> set[str]:
    """Returns the names of the files in the cache, without its lock."""
    return {path.name for path in cache.iterdir()} - {".lock"}


def test_a_checkpoint_is_fetched_once_and_works_offline(server, archive, tmp_path, monkeypatch):
    server.body = archive
    prefix = zoo.checkpoint("zoo:edgetpu", tmp_path)
    account = tf1_checkpoint.read(prefix)
    assert (account.target.architecture.name, account.target.num_classes) == ("edgetpu", 90)
    assert left(tmp_path) == {FOLDER} and len(list((tmp_path / FOLDER).iterdir())) == 2
    monkeypatch.setattr(zoo, "ADDRESS", "http://127.0.0.1:9/")
    assert zoo.checkpoint("zoo:edgetpu", tmp_path) == prefix
    assert server.ranges == [None]


def test_a_download_that_was_cut_off_is_resumed(server, archive, tmp_path):
    server.body, server.cut_after = archive, 60_000
    words = f"{server.address}{NAME} cannot be downloaded: .* 60000 of .* bytes; rerun the command"
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            zoo.checkpoint("zoo:edgetpu", tmp_path)
        assert (tmp_path / f"{NAME}.part").stat().st_size == 60_000
    server.cut_after = None
    zoo.checkpoint("zoo:edgetpu", tmp_path)
    assert server.ranges == [None, "bytes=60000-", "bytes=60000-"] and left(tmp_path) == {FOLDER}


def test_parts_of_two_files_never_meet(server, archive, tmp_path):
    server.body, server.cut_after = b"another file, quite as long" * 20_000, 60_000
    with pytest.raises(InputError):
        zoo.checkpoint("zoo:edgetpu", tmp_path)
    server.body, server.cut_after, server.etag = archive, None, '"two"'
    zoo.checkpoint("zoo:edgetpu", tmp_path)
    assert left(tmp_path) == {FOLDER}


def test_an_archive_that_was_fetched_by_hand_is_taken_and_left(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ADDRESS", "http://127.0.0.1:9/")
    (tmp_path / NAME).write_bytes(archive)
    zoo.checkpoint("zoo:edgetpu", tmp_path)
    assert left(tmp_path) == {FOLDER, NAME}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut", "truncated or damaged"),
        ("checksum", "truncated or damaged"),
        ("text", "truncated or damaged"),
        ("data", "a checkpoint without its .data-00000-of-00001 file"),
        ("empty", "contains 0 float checkpoints"),
        ("outside", "which is outside its folder"),
        ("absolute", "which is outside its folder"),
        ("link", "is a link"),
        ("wrong", "does not contain network 'edgetpu'"),
        ("short", "does not contain network 'edgetpu'"),
    ],
)
def test_a_bad_archive_is_refused_in_one_line(kind, words, server, archive, checkpoint, tmp_path):
    whole = {f"{FOLDER}/fp32/{name}": data for name, data in checkpoint.items()}
    data = f"{FOLDER}/fp32/{DATA}"
    server.body = {
        "cut": lambda: archive[:-2000],
        "checksum": lambda: archive[:-4],
        "text": lambda: b"<html>no archive</html>",
        "data": lambda: packed({n: d for n, d in whole.items() if n != data}),
        "empty": lambda: packed({f"{FOLDER}/README": b""}),
        "outside": lambda: packed(whole | {"../evil": b"x"}),
        "absolute": lambda: packed(whole | {"/tmp/evil": b"x"}),
        "link": lambda: packed(whole | {f"{FOLDER}/evil": None}),
        "wrong": lambda: packed(whole | {f"{FOLDER}/fp32/{INDEX}": b"no index"}),
        "short": lambda: packed(whole | {data: checkpoint[DATA][:1000]}),
    }[kind]()
    with pytest.raises(InputError, match=words) as caught:
        zoo.checkpoint("zoo:edgetpu", tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not left(tmp_path / "cache") and {path.name for path in tmp_path.iterdir()} == {"cache"}


def test_a_checkpoint_without_its_data_is_refused(checkpoint, tmp_path):
    (tmp_path / INDEX).write_bytes(checkpoint[INDEX])
    with pytest.raises(InputError, match="lacks .*data-00000-of-00001") as caught:
        tf1_checkpoint.read(tmp_path / INDEX)
    assert "\n" not in str(caught.value)


def test_another_networks_archive_is_refused(archive, tmp_path):
    (tmp_path / NAME.replace("edgetpu", "dsp")).write_bytes(archive)
    with pytest.raises(InputError, match="network 'dsp': --architecture=dsp, but .* belongs to 'edgetpu'"):
        zoo.checkpoint("zoo:dsp", tmp_path)


def test_a_full_disk_leaves_nothing(server, archive, tmp_path, monkeypatch):
    server.body = archive

    def full(answer, part, *_):
        part.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zoo, "_copy", full)
    with pytest.raises(InputError, match="no space left in the cache"):
        zoo.checkpoint("zoo:edgetpu", tmp_path)
    assert not left(tmp_path)


def test_no_network_and_no_such_file_give_the_address(server, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="dsp_320x320_coco_2020_05_19.tar.gz cannot be downloaded: HTTP 404"):
        zoo.checkpoint("zoo:dsp", tmp_path)
    monkeypatch.setattr(zoo, "ADDRESS", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match=f"{NAME} cannot be downloaded: .*efused; rerun the command"):
        zoo.checkpoint("zoo:edgetpu", tmp_path)
    assert not left(tmp_path)


def test_the_published_address_and_the_cache(monkeypatch, tmp_path):
    assert zoo.ADDRESS == "https://download.tensorflow.org/models/object_detection/"
    monkeypatch.setenv(zoo.CACHE_VARIABLE, str(tmp_path))
    assert zoo.cache_folder() == tmp_path and zoo.cache_folder("other").name == "other"


def test_a_redirect_leads_to_https_only():
    request = zoo.urllib.request.Request("https://one.example/file")
    with pytest.raises(zoo.urllib.error.URLError, match="not https"):
        zoo._StaySecure().redirect_request(request, None, 302, "Found", {}, "http://two.example/file")


def test_a_wrong_name_ends_the_command(tmp_path, capsys):
    flags = [f"--model_dir={tmp_path}/model", f"--train_data={tmp_path}"]
    assert command.run(["mobiledets-train", "--init_from=zoo:edgtpu", *flags]) == 2
    assert "did you mean 'edgetpu'?" in capsys.readouterr().err
