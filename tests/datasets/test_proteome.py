"""ProteomeDataset: its length filter, and UniProt's ways of failing with HTTP 200."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from plmjac.datasets import InputError, build
from plmjac.records import Filtered, Protein, Rejected

FASTA = b">tr|A1|X first\nMKVLA\n>tr|A2|Y second\nMK\n>tr|A3|Z third\nMKVLAMKVLA\n>bad\nA-C\n"


def test_length_filter_includes_both_ends(tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_bytes(FASTA)
    path = str(tmp_path / "p.fasta")
    kept, short, long, bad = build("proteome", path=path, min_length=5, max_length=9)
    assert isinstance(kept, Protein) and len(kept) == 5
    assert isinstance(short, Filtered) and short.length == 2 and "dataset.min_length=5" in short.reason
    assert isinstance(long, Filtered) and long.length == 10 and "dataset.max_length=9" in long.reason
    assert isinstance(bad, Rejected)
    everything = build("proteome", path=path, min_length=None, max_length=None)
    assert [type(record) for record in everything] == [Protein] * 3 + [Rejected]
    assert [record.id for record in build("proteome", path=path, min_length=10, max_length=10, ids=["A3"])] == [
        "tr|A3|Z"
    ]


@pytest.mark.parametrize("compressed", [True, False])
def test_fetched(server: Any, tmp_path: Path, compressed: bool) -> None:
    content = gzip.compress(FASTA) if compressed else FASTA
    server.answers["/stream"] = [
        server.body(
            content[:-20] if compressed else FASTA + b"Error encountered when streaming data. Please try again"
        ),
        server.body(content),
    ]
    arguments = {"proteome": "up000000625", "url": f"{server.url}/stream", "cache": str(tmp_path), "min_length": 1}
    assert [record.id for record in build("proteome", **arguments)] == ["tr|A1|X", "tr|A2|Y", "tr|A3|Z", "bad"]
    assert server.requests[-1] == "/stream?query=proteome:UP000000625&format=fasta&compressed=true"
    assert len(server.requests) == 2
    assert len(list(build("proteome", **arguments))) == 4 and len(server.requests) == 2


def test_unknown_proteome(server: Any, tmp_path: Path) -> None:
    server.answers["/stream"] = [server.body(gzip.compress(b""))]
    dataset = build("proteome", proteome="UP999999999", url=f"{server.url}/stream", cache=str(tmp_path))
    with pytest.raises(InputError, match="UniProt knows no proteins of UP999999999"):
        list(dataset)
    assert list(tmp_path.iterdir()) == []


def test_without_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"dataset\.path=FILE\.fasta"):
        list(build("proteome", proteome="UP000000625", url="http://127.0.0.1:9/stream", cache=str(tmp_path)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs one of"),
        ({"proteome": "UP000000625", "path": "x.fasta"}, "needs one of"),
        ({"proteome": "human"}, "not a UniProt proteome id"),
        ({"proteome": "UP000000625", "min_length": 100, "max_length": 50}, "above"),
        ({"path": "nowhere.fasta"}, "does not exist"),
    ],
)
def test_unusable_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build("proteome", **arguments)
