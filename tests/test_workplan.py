"""The plan: every record one row, every row of every protein exactly once, whoever computes it."""

import math
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plmjac.limit import Limit
from plmjac.records import Filtered, Protein, Rejected, WorkItem
from plmjac.workplan import (
    CHUNK_BYTES,
    DEAR,
    ManifestRow,
    Shard,
    Stored,
    forwards,
    key_of,
    manifest,
    merge,
    remaining,
    rows_per_chunk_for,
    shared_out,
    whole,
    work_items,
)

lengths = st.lists(st.integers(1, 300), max_size=30)


def rows_of(sizes: list[int]) -> list[ManifestRow]:
    """Proteins that differ in id and in sequence."""
    return manifest(Protein(f"p{n}", "A" * size + "CDEFGHIKLM"[n % 10] * n) for n, size in enumerate(sizes))


def shard(rows: list[ManifestRow], rank: int, world: int) -> list[ManifestRow]:
    """The proteins of one rank, where none is cut."""
    return [portion.row for portion in shared_out(whole(rows), world)[rank]]


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


@settings(deadline=None, max_examples=40)
@given(lengths, st.integers(1, 8), st.integers(1, 40), st.randoms(use_true_random=False))
def test_rows_of_dear_proteins_are_shared_and_each_is_in_one_portion(
    sizes: list[int], world: int, rows_per_chunk: int, chance: random.Random
) -> None:
    """Against the definition: all rows of all proteins once, cut between blocks, the same cut in whatever order."""
    rows = rows_of(sizes)

    def blocks(row: ManifestRow) -> list[WorkItem]:
        return work_items(row, rows_per_chunk)

    shares = shared_out(whole(rows), world, blocks)
    shuffled = rows.copy()
    chance.shuffle(shuffled)
    assert shared_out(whole(shuffled), world, blocks) == shares
    fair = math.fsum(row.cost for row in rows) / world
    computed: dict[str, list[int]] = {row.key: [] for row in rows}
    for portion in (portion for share in shares for portion in share):
        items = portion.of(blocks(portion.row))
        assert items and sum(item.cost for item in items) == pytest.approx(portion.cost)
        assert {item.role for item in items} == ({"shared"} if portion.is_shared else {"own"})
        assert not portion.is_shared or portion.row.cost > DEAR * fair
        for item in items:
            assert item.start % rows_per_chunk == 0
            computed[item.key] += range(item.start, item.stop)
    assert all(sorted(computed[row.key]) == list(range(row.length)) for row in rows)
    for share in shares:
        assert len({portion.row.key for portion in share}) == len(share)
    dearest = max((portion.cost for share in shares for portion in share), default=0.0)
    assert max(sum(portion.cost for portion in share) for share in shares) <= fair + dearest * 1.0001


def test_a_giant_among_small_ones_keeps_no_rank_waiting() -> None:
    """35,000 residues cost more than a thousand small proteins; in windows and blocks of a row, as they are run."""
    limit = Limit(1022, None, "window")
    records = [Protein("titin", "MKTAYIAKQR" * 3500), *(Protein(f"p{n}", "A" * n) for n in range(100, 300))]
    rows = manifest(records, limit=limit, cost=lambda protein: float(forwards(len(protein)) * min(1022, len(protein))))
    shares = shared_out(whole(rows), 8, work_items)
    loads = [sum(portion.cost for portion in share) for share in shares]
    assert max(loads) < 1.01 * min(loads)
    assert [sum(portion.row.key == "titin" for portion in share) for share in shares] == [1] * 8
    alone = [sum(portion.cost for portion in share) for share in shared_out(whole(rows), 8)]
    assert max(alone) > 6 * max(loads)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_nothing_is_cut_where_every_rank_has_a_protein_of_the_same_cost(world: int) -> None:
    rows = rows_of([90] * world)
    rows = [replace(row, cost=0.1 + 0.2) for row in rows]
    shares = shared_out(whole(rows), world, lambda row: work_items(row, 10))
    assert [[portion.is_shared for portion in share] for share in shares] == [[False]] * world


def test_what_shards_share_is_shared_again_by_the_ranks_of_one() -> None:
    (row,) = rows_of([100])

    def blocks(row: ManifestRow) -> list[WorkItem]:
        return work_items(row, 10)

    first, second = (Shard(number, 2).of([row], blocks) for number in (1, 2))
    assert [portion.starts for portion in first + second] == [(0, 10, 20, 30, 40), (50, 60, 70, 80, 90)]
    ranks = shared_out(second, 3, blocks)
    assert sorted(portion.starts for share in ranks for portion in share) == [(50,), (60, 70), (80, 90)]


def test_a_rank_that_is_given_two_parts_of_a_protein_has_one_portion_with_both() -> None:
    """18 rows in blocks of 8, 8 and 2, and 22 of them, for two ranks each: parts differ, and the small ones meet."""
    rows = rows_of([18, 22, 3])
    for number in (2, 3, 4, 5):
        shares = shared_out(whole(rows), number, lambda row: work_items(row, 8))
        found = sorted((part.row.key, start) for share in shares for part in share for start in part.starts or (0,))
        assert {("p0", 0), ("p1", 0), ("p2", 0)} <= set(found) and len(found) == len(set(found))
        if number > 3:
            assert found == [("p0", 0), ("p0", 8), ("p0", 16), ("p1", 0), ("p1", 8), ("p1", 16), ("p2", 0)]


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
    """20,000 of them: with a search from 2 on for each it would be 200 million steps, minutes of a processor."""
    began = time.process_time()
    rows = manifest(Protein("protein", "MK") for _ in range(20_000))
    assert time.process_time() - began < 40
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
        assert sorted(part.row.key for share in shares for part in share) == sorted(f"p{n}" for n in range(40))
        assert [{part.row.key for part in share} for share in shares] == [
            {part.row.key for part in Shard(number, 7).of(before)} for number in range(1, 8)
        ]
        loads = [sum(part.cost for part in share) for share in shares]
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
