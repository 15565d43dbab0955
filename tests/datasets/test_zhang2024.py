"""Zhang2024Dataset on small files, and its counts on the authors' own."""

import json
from pathlib import Path
from typing import Any

import pytest

from plmjac.datasets import InputError, build
from plmjac.datasets.zhang2024 import SELECTED, SEQUENCES
from plmjac.records import Protein, Rejected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / SEQUENCES).write_text(json.dumps({"1AAAA": "MKV", "2BBBC": "ACX", "3CCCD": "A-C", "4DDDA": "WWW"}))
    (tmp_path / SELECTED).write_text(json.dumps(["4DDDA", "1AAAA", "3CCCD"]))
    return tmp_path


def test_order_selection_and_bad_sequences(folder: Path) -> None:
    first, second, bad = build("zhang2024", path=str(folder))
    assert isinstance(first, Protein) and (first.id, first.sequence) == ("4DDDA", "WWW")
    assert second.id == "1AAAA"
    assert isinstance(bad, Rejected) and bad.id == "3CCCD" and "gaps" in bad.reason
    everything = build("zhang2024", path=str(folder), selected=False)
    assert [record.id for record in everything] == ["1AAAA", "2BBBC", "3CCCD", "4DDDA"]
    assert [record.id for record in build("zhang2024", path=str(folder), ids=["1AAA_A"])] == ["1AAAA"]


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2BBBC not in the 1,431 selected"):
        list(build("zhang2024", path=str(folder), ids=["2BBBC"]))
    with pytest.raises(InputError, match="did you mean '1AAAA'"):
        list(build("zhang2024", path=str(folder), ids=["1AAAB"], selected=False))
    with pytest.raises(InputError, match=SEQUENCES):
        build("zhang2024", path=str(tmp_path / "nowhere"))
    (folder / SELECTED).write_text('["9ZZZZ"]')
    with pytest.raises(InputError, match="one revision"):
        list(build("zhang2024", path=str(folder)))
    (folder / SELECTED).write_text("[")
    with pytest.raises(InputError, match="not JSON"):
        list(build("zhang2024", path=str(folder)))


def test_fetched(server: Any, folder: Path, tmp_path: Path) -> None:
    for name in (SEQUENCES, SELECTED):
        server.answers[f"/{name}"] = [server.status(502), server.body((folder / name).read_bytes())]
    arguments = {"url": server.url, "cache": str(tmp_path / "cache")}
    assert [record.id for record in build("zhang2024", **arguments)] == ["4DDDA", "1AAAA", "3CCCD"]
    server.answers.clear()
    assert len(list(build("zhang2024", **arguments))) == 3
    with pytest.raises(InputError, match=r"dataset\.path=FOLDER"):
        list(build("zhang2024", url=server.url, cache=str(tmp_path / "other")))


def test_the_papers_chains(shared_data: Path) -> None:
    path = str(shared_data / "zhang2024")
    chosen = [record for record in build("zhang2024", path=path) if isinstance(record, Protein)]
    assert len(chosen) == 1431 and sum(map(len, chosen)) == 466_608
    assert (min(map(len, chosen)), max(map(len, chosen))) == (201, 599)
    full = [record for record in build("zhang2024", path=path, selected=False) if isinstance(record, Protein)]
    assert len(full) == 2170 and sum(map(len, full)) == 620_251
