"""A protein that kills its process goes last, then is recorded as failed; other deaths count for nobody."""

from pathlib import Path

import pytest

from plmjac.records import WorkItem
from plmjac.store.under_way import UnderWay, count_deaths, goes_last, refusal


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "pending").mkdir()
    return tmp_path


def item(key: str, start: int = 0) -> WorkItem:
    return WorkItem(key, "M" * 30, start, start + 10)


def test_deaths_are_counted_by_protein_as_long_as_it_gets_no_further(store: Path) -> None:
    rank = UnderWay(store, "run", 0)
    for deaths in (1, 2, 3):
        rank.begin(item("a"))
        assert count_deaths(store, None, {"a", "b"}) == {"a": deaths}
    assert count_deaths(store, None, {"a", "b"}) == {"a": 3}  # nobody died since
    rank.begin(item("a", 10))
    assert count_deaths(store, None, {"a", "b"}) == {"a": 1}  # it got a block further
    assert count_deaths(store, None, {"b"}) == {}  # it is in the store
    assert count_deaths(store, None, {"a", "b"}) == {}


def test_deaths_of_ranks_that_share_a_protein_are_counted_by_block(store: Path) -> None:
    """One gets further from death to death, the other never does; and each note counts once."""
    ranks = [UnderWay(store, "run", rank) for rank in (0, 1)]
    for deaths in (1, 2, 3):
        ranks[0].begin(item("a", 10 - deaths))
        ranks[1].begin(item("a", 20))
        assert count_deaths(store, None, {"a"}) == {"a": deaths}
        assert goes_last(store) == ({"a"} if deaths > 1 else set())


def test_a_run_that_ends_by_itself_leaves_nothing(store: Path) -> None:
    rank = UnderWay(store, "run", 0)
    rank.begin(item("a"))
    rank.clear()
    rank.clear()
    assert count_deaths(store, None, {"a"}) == {}


def test_a_shard_counts_its_own_deaths_and_leaves_the_notes_of_those_at_work(store: Path) -> None:
    UnderWay(store, "1-of-3", 0).begin(item("a"))
    UnderWay(store, "2-of-3", 0).begin(item("b"))
    UnderWay(store, "2-of-3", 1).begin(item("c"))
    assert count_deaths(store, "2-of-3", {"a", "b", "c"}) == {"b": 1, "c": 1}
    assert count_deaths(store, None, {"a", "b", "c"}) == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 1, "start": "x"}', b"\xff"])
def test_a_note_that_was_cut_is_no_death(store: Path, content: bytes) -> None:
    (store / "pending/under_way.run.0").write_bytes(content)
    (store / "pending/deaths.json").write_bytes(content)
    assert count_deaths(store, None, {"a"}) == {}
    assert not list((store / "pending").glob("under_way*"))


def test_the_reason_says_what_to_do(store: Path) -> None:
    assert "plmjac.plan" in refusal(store, 3) and str(store / "pending/deaths.json") in refusal(store, 3)
