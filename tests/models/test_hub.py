"""Downloads, against a server on loopback that speaks as much of Hugging Face's protocol as the client needs."""

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from plmjac.models import hub, load_model
from plmjac.models.hub import PUBLISHED, Published

REVISION = "c731040fcd8d73dceaa04b0a8e6329b345b0f5df"
REPOSITORY = "somebody/esm2_small"


class FakeHub(http.server.ThreadingHTTPServer):
    """Serves one folder as one repository at one revision, and remembers what was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[tuple[str, str]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        self.server.requests.append((self.command, self.path))
        prefix = f"/{REPOSITORY}/resolve/{REVISION}/"
        path = self.server.folder / self.path.removeprefix(prefix)
        if not self.path.startswith(prefix) or not path.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture()
def server(oracle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub(oracle.folder)
    thread = threading.Thread(target=fake.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{fake.server_address[1]}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield fake
    fake.shutdown()
    fake.server_close()
    thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, oracle: Any, **changes: Any) -> None:
    """Put the oracle in the place of esm2_8m."""
    digest = hashlib.sha256((oracle.folder / "model.safetensors").read_bytes()).hexdigest()
    options = dict(revision=REVISION, weights={"model.safetensors": digest}) | changes
    monkeypatch.setitem(PUBLISHED, "esm2_8m", Published(oracle.architecture, REPOSITORY, **options))


def test_download_once_at_the_pinned_revision(
    server: FakeHub, oracle: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(monkeypatch, oracle)
    model = load_model("esm2_8m")
    assert model.weights_sha256 == PUBLISHED["esm2_8m"].weights["model.safetensors"]
    assert model.architecture == oracle.architecture
    resolved = [path.rsplit("/", 1)[1] for _, path in server.requests if REVISION in path]
    assert sorted(set(resolved)) == ["config.json", "model.safetensors"]
    server.requests.clear()
    assert load_model("esm2_8m").weights_sha256 == model.weights_sha256
    assert not server.requests, "a pinned revision in the cache needs no network"
    assert capsys.readouterr().out == ""


def test_other_content_than_the_pinned_one_is_refused(
    server: FakeHub, oracle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, oracle, weights={"model.safetensors": "0" * 64})
    with pytest.raises(ValueError, match=r"is not the published file: its sha256 is .*, expected 0{64}; delete "):
        load_model("esm2_8m")


def test_shards_are_opened_by_their_index(server: FakeHub, oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256((oracle.folder / "config.json").read_bytes()).hexdigest()
    weights = {"model.safetensors": next(iter(_weights(oracle).values())), "config.json": digest}
    publish(monkeypatch, oracle, weights=weights, also=("config.json",))
    assert hub.fetch("esm2_8m").name == "config.json"
    publish(monkeypatch, oracle, weights={**weights, "config.json": "0" * 64})
    with pytest.raises(ValueError, match=r"config\.json is not the published file"):
        hub.fetch("esm2_8m")


def _weights(oracle: Any) -> dict[str, str]:
    return {"model.safetensors": hashlib.sha256((oracle.folder / "model.safetensors").read_bytes()).hexdigest()}


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_network_it_says_what_to_bring(
    server: FakeHub, oracle: Any, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    publish(monkeypatch, oracle)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(time, "sleep", lambda _: None)  # the client waits between its attempts
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    expected = rf"download config\.json from {REPOSITORY}@{REVISION} and give model\.checkpoint=PATH"
    with pytest.raises(ValueError, match=expected) as caught:
        load_model("esm2_8m")
    assert "\n" not in str(caught.value)
    assert server.requests == []


def test_a_file_that_the_repository_lacks(server: FakeHub, oracle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(monkeypatch, oracle, weights={"other.safetensors": "0" * 64})
    with pytest.raises(ValueError, match=r"download other\.safetensors from"):
        load_model("esm2_8m")


def test_15b_is_not_downloaded() -> None:
    with pytest.raises(ValueError, match=r"no revision and hash of esm2_15b .* give model\.checkpoint=PATH"):
        load_model("esm2_15b")


def test_what_is_published_is_pinned() -> None:
    for name, published in PUBLISHED.items():
        if name == "esm2_15b":
            assert published.revision is None and not published.weights
            continue
        assert published.revision is not None and len(published.revision) == 40
        assert published.weights and all(len(digest) == 64 for digest in published.weights.values())
    assert PUBLISHED["esm2_3b"].main_file == "pytorch_model.bin.index.json"
    assert PUBLISHED["esm2_650m"].main_file == "model.safetensors"
