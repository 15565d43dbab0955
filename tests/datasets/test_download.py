"""Downloads from a server on loopback that fails in every way a server can."""

import gzip
import hashlib
import socket
from pathlib import Path
from typing import Any

import pytest

from plmjac.files import BadDownload, NotFound, Unreachable, UsageError, cache_folder, download


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.txt"


def leftovers(target: Path) -> list[str]:
    return sorted(file.name for file in target.parent.iterdir())


def test_fails_twice_then_serves(server: Any, target: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.answers["/f"] = [server.status(503), server.status(500), server.body(b"content")]
    assert download(f"{server.url}/f", target) == target
    assert target.read_bytes() == b"content" and len(server.requests) == 3
    assert leftovers(target) == ["file.txt"]
    said = [record.getMessage() for record in caplog.records if "next try in" in record.getMessage()]
    assert len(said) == 2 and all(server.url in line for line in said) and "stamina" not in caplog.text
    download(f"{server.url}/f", target)
    assert len(server.requests) == 3  # what is there is not asked for again


def test_not_found_is_not_retried(server: Any, target: Path) -> None:
    with pytest.raises(NotFound, match="404"):
        download(f"{server.url}/f", target)
    assert len(server.requests) == 1 and leftovers(target) == []


@pytest.mark.parametrize(("code", "requests"), [(403, 1), (503, 4)])
def test_errors_that_last(server: Any, target: Path, code: int, requests: int) -> None:
    server.answers["/f"] = [server.status(code)]
    with pytest.raises(BadDownload, match=str(code)):
        download(f"{server.url}/f", target)
    assert len(server.requests) == requests and leftovers(target) == []


def test_cut_transfer_is_repeated(server: Any, target: Path) -> None:
    server.answers["/f"] = [server.body(b"con", promised=7), server.body(b"content")]
    assert download(f"{server.url}/f", target).read_bytes() == b"content"
    server.answers["/g"] = [server.body(b"con", promised=7)]
    with pytest.raises(Unreachable, match="peer closed"):
        download(f"{server.url}/g", target.with_name("g"))
    assert leftovers(target) == ["file.txt"]


def test_connection_refused(target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}.*network"):
        download(f"http://127.0.0.1:{port}/f", target)
    assert leftovers(target) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/f", "nonsense", "http://[broken/f"])
def test_addresses_that_are_none(target: Path, url: str) -> None:
    with pytest.raises(UsageError):
        download(url, target)
    assert leftovers(target) == []


def test_slow_server(server: Any, target: Path) -> None:
    import time

    server.answers["/f"] = [lambda handler: time.sleep(0.5), server.body(b"content")]
    assert download(f"{server.url}/f", target, timeout=0.2).read_bytes() == b"content"


def test_checksum_and_check(server: Any, target: Path) -> None:
    server.answers["/f"] = [server.body(b"wrong"), server.body(b"right")]
    digest = hashlib.sha256(b"right").hexdigest()
    assert download(f"{server.url}/f", target, sha256=digest).read_bytes() == b"right"

    def check(path: Path) -> None:
        if path.read_bytes() != b"right":
            raise ValueError("it is not right")

    server.answers["/g"] = [server.body(b"wrong"), server.body(b"right")]
    assert download(f"{server.url}/g", target.with_name("g"), check=check).read_bytes() == b"right"
    server.answers["/h"] = [server.body(b"wrong")]
    with pytest.raises(BadDownload, match="it is not right"):
        download(f"{server.url}/h", target.with_name("h"), check=check)
    with pytest.raises(BadDownload, match="sha256"):
        download(f"{server.url}/h", target.with_name("h"), sha256=digest)
    assert leftovers(target) == ["file.txt", "g"]


def test_content_encoding_is_undone_once(server: Any, target: Path) -> None:
    def answer(handler: Any) -> None:
        content = gzip.compress(b"content")
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    server.answers["/f"] = [answer]
    assert download(f"{server.url}/f", target).read_bytes() == b"content"


def test_cache_that_cannot_be_written(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="PLMJAC_CACHE"):
        download(f"{server.url}/f", tmp_path / "file" / "target")


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PLMJAC_CACHE", raising=False)
    assert cache_folder("pdb") == Path("~/.cache/plmjac/pdb").expanduser()
    monkeypatch.setenv("PLMJAC_CACHE", str(tmp_path))
    assert cache_folder("pdb") == tmp_path / "pdb"
