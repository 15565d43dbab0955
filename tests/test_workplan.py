"""The plan: every record one row, every row of every protein exactly once, whoever computes it."""

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plmjac.records import Filtered, Protein, Rejected
from plmjac.workplan import (
    CHUNK_BYTES,
    Limit,
    ManifestRow,
    Shard,
    Stored,
    forwards,
    key_of,
    manifest,
    merge,
    remaining,
    rows_per_chunk_for,
    shard,
    work_items,
)

lengths = st.lists(st.integers(1, 300), max_size=30)


def rows_of(sizes: list[int]) -> list[ManifestRow]:
    """Proteins that differ in id and in sequence."""
    return manifest(Protein(f"p{n}", "A" * size + "CDEFGHIKLM"[n % 10] * n) for n, size in enumerate(sizes))


@settings(deadline=None)
@given(lengths, st.integers(1, 8), st.one_of(st.none(), st.integers(1, 400)))
def test_every_row_is_computed_exactly_once(sizes: list[int], world: int, rows_per_chunk: int | None) -> None:
    rows = rows_of(sizes)
    computed: dict[str, list[int]] = {row.key: [] for row in rows}
    for rank in range(world):
        for row in shard(rows, rank, world):
            items = work_items(row, rows_per_chunk)
            assert items[0].is_first and items[-1].is_last
            for item in items:
                computed[item.key] += range(item.start, item.stop)
    assert all(computed[row.key] == list(range(row.length)) for row in rows)


@settings(deadline=None)
@given(lengths, st.integers(1, 8), st.randoms(use_true_random=False))
def test_shards_do_not_depend_on_the_order_of_the_rows(sizes: list[int], world: int, chance: random.Random) -> None:
    rows = rows_of(sizes)
    shuffled = rows.copy()
    chance.shuffle(shuffled)
    for rank in range(world):
        assert shard(rows, rank, world) == shard(shuffled, rank, world)


@settings(deadline=None)
@given(lengths, st.integers(1, 8), st.integers(1, 8), st.data())
def test_a_run_killed_anywhere_is_completed_by_any_number_of_ranks(
    sizes: list[int], world: int, world_after: int, data: st.DataObject
) -> None:
    rows = rows_of(sizes)
    done: set[str] = set()
    for rank in range(world):
        mine = shard(remaining(rows, done=()), rank, world)
        done |= {row.key for row in mine[: data.draw(st.integers(0, len(mine)))]}
    again = [row.key for rank in range(world_after) for row in shard(remaining(rows, done), rank, world_after)]
    assert sorted(again) == sorted({row.key for row in rows} - done)


@settings(deadline=None)
@given(st.lists(st.integers(50, 300), min_size=8, max_size=40), st.integers(2, 8))
def test_no_rank_has_more_than_its_share_and_one_protein(sizes: list[int], world: int) -> None:
    rows = rows_of(sizes)
    loads = [sum(row.cost for row in shard(rows, rank, world)) for rank in range(world)]
    assert max(loads) <= sum(loads) / world + max(row.cost for row in rows)


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="rank 2 of 2"):
        shard([], 2, 2)


def test_identical_sequences_are_computed_once() -> None:
    rows = manifest([Protein("a", "MK"), Protein("b", "MK"), Protein("c", "MKV")])
    assert [(row.id, row.alias_of) for row in rows] == [("a", ""), ("b", "a"), ("c", "")]
    assert [row.key for row in remaining(rows, ())] == ["a", "c"]


def test_a_sequence_that_the_store_has_is_not_computed_under_another_name() -> None:
    rows = manifest([Protein("b", "MK")], stored=[Stored("a", "a", "MK")])
    assert (rows[0].alias_of, rows[0].status) == ("a", "done")


def test_what_the_store_has_keeps_its_key_and_is_done() -> None:
    stored = [Stored("A", "A", "MKV"), Stored("a%232", "a", "MKL"), Stored("copy", "copy", "MKV", alias_of="A")]
    records = [*[Protein("a", "MKL")] * 2, Protein("copy", "MKV"), Protein("new", "MM"), Rejected("A", "x")]
    rows = manifest(records, stored=stored)
    assert [(row.key, row.alias_of, row.status) for row in rows] == [
        ("a%232", "", "done"),
        ("a%233", "a%232", "done"),  # "a" would be "A" on some file systems
        ("copy", "A", "done"),
        ("new", "", "pending"),
        ("A%234", "", "failed"),
    ]


def test_an_id_for_two_sequences_is_refused_and_the_first_kept() -> None:
    rows = manifest([Protein("a", "MK", "x.fasta, record 1"), Protein("a", "MV"), Protein("a", "MK")])
    assert [row.status for row in rows] == ["pending", "failed", "pending"]
    assert "x.fasta, record 1" in rows[1].reason
    assert rows[2].alias_of == "a"
    assert len({row.key for row in rows}) == 3


def test_a_name_that_the_store_has_for_another_sequence_is_refused() -> None:
    rows = manifest([Protein("a", "MK")], stored=[Stored("a", "a", "MV")])
    assert rows[0].status == "failed"
    assert "another sequence" in rows[0].reason
    assert rows[0].key != "a"


def test_every_kind_of_record_has_a_row() -> None:
    records = [Protein("a", "M" * 11), Rejected("b", "broken", "b.pdb"), Filtered("c", "short", "c.fasta", 4)]
    rows = manifest(records, limit=Limit(10))
    assert [row.status for row in rows] == ["skipped", "failed", "filtered"]
    assert "max_length=10" in rows[0].reason
    assert remaining(rows, ()) == []


def test_merge_forgets_nothing() -> None:
    earlier, now = (
        manifest([Protein("a", "MK"), Protein("b", "MV")]),
        manifest([Protein("b", "MV"), Protein("c", "MM")]),
    )
    assert [(row.id, row.status) for row in merge(now, earlier, ())] == [
        ("b", "pending"), ("c", "pending"), ("a", "unfinished")
    ]  # fmt: skip


def test_merge_sees_what_was_deleted() -> None:
    """A row that says done, and its alias, are open again where the protein is gone."""
    records = [Protein("a", "MK"), Protein("copy", "MK"), Protein("b", "MV")]
    earlier = [replace(row, status="done") for row in manifest(records)]
    status = {row.id: row.status for row in merge([], earlier, {"b"})}
    assert status == {"a": "unfinished", "copy": "unfinished", "b": "done"}


def test_many_records_of_one_name_are_numbered_at_once() -> None:
    """20,000 of them: with a search from 2 on for each it would be 200 million steps."""
    began = time.process_time()
    rows = manifest(Protein("protein", "MK") for _ in range(20_000))
    assert time.process_time() - began < 10
    assert [row.key for row in rows[:3]] == ["protein", "protein%232", "protein%233"]
    assert len({row.key for row in rows}) == 20_000


def test_forwards_and_chunks() -> None:
    assert forwards(100) == 1901
    assert rows_per_chunk_for(10) == 10
    size = rows_per_chunk_for(1000)
    assert size * 800 * 1000 <= CHUNK_BYTES < (size + 1) * 800 * 1000
    assert rows_per_chunk_for(100_000) == 1


@pytest.mark.parametrize(
    "identifier",
    [
        "../../etc/x",
        "/abs",
        "a/b",
        "..",
        ".",
        "\x00",
        "x" * 10_000,
        "zarr.json",
        "con",
        "é",
        "é",
        "sp|P1|N",
        "a b",
        "%41",
    ],
)
def test_keys_are_safe_file_names(identifier: str) -> None:
    key = key_of(identifier)
    assert key != identifier
    assert "/" not in key and "\x00" not in key and not key.startswith(".") and not key.endswith(".")
    assert len(key) <= 120 and key.isascii()


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), unique=True, max_size=20))
def test_no_two_ids_share_a_folder(identifiers: list[str]) -> None:
    rows = manifest(Protein(name, "A" * (number + 1)) for number, name in enumerate(identifiers))
    assert len({row.key.casefold() for row in rows}) == len(identifiers)
    assert all(key_of(name) == name for name in identifiers if name.isascii() and name.isalnum() and len(name) > 4)


def test_plain_ids_are_their_own_keys_whatever_their_case() -> None:
    rows = manifest([Protein("1TEN_A", "MK"), Protein("1ten_a", "MV")])
    assert [row.key for row in rows] == ["1TEN_A", "1ten_a%232"]


def test_shards_and_ranks_partition_the_plan_whatever_is_done() -> None:
    """Every protein in exactly one shard, the same one before and after some are done; and one rank of it."""
    chance = random.Random(5)
    records = [Protein(f"p{number}", "".join(chance.choices("ACDE", k=number + 3))) for number in range(40)]
    records += [Protein("copy", records[3].sequence), Rejected("bad", "broken", "x")]
    before = manifest(records)
    stored = [Stored(row.key, row.id, row.sequence) for row in before[:11]]
    for rows in (before, manifest(records, stored=stored)):
        shares = [Shard(number, 7).of(rows) for number in range(1, 8)]
        assert sorted(row.key for share in shares for row in share) == sorted(f"p{n}" for n in range(40))
        assert [{row.key for row in share} for share in shares] == [
            {row.key for row in Shard(number, 7).of(before)} for number in range(1, 8)
        ]
        loads = [sum(row.cost for row in share) for share in shares]
        assert max(loads) < 1.3 * min(loads)
    assert [len(Shard(number, 60).of(before)) for number in (40, 41, 60)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("text", "good"), [("1/1", True), ("16/16", True), ("0/4", False), ("5/4", False), ("a/b", False)]
)
def test_a_shard_is_written_from_1_on(text: str, good: bool) -> None:
    if good:
        assert str(Shard.parse(text)) == text
    else:
        with pytest.raises(ValueError, match=r"shard=k/n.*from 1 to n"):
            Shard.parse(text)
