"""Chains of a complex on their way from a record to the model and the store: never lost, never mistaken for others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import jacobian_in_float32

from plmjac.alphabet import encode
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.jacobian import center, contact_map, symmetrize
from plmjac.models import LanguageModel, load_model
from plmjac.models.debug import LinearModel
from plmjac.records import Chains, Protein, WorkItem
from plmjac.store import SavedRows, open_store, verify
from plmjac.substitutions import AllSubstitutions
from plmjac.workplan import Stored, manifest, work_items

Predict = Callable[..., int]
SEQUENCE = "MKTAYIAKQRGSHMLEDPVDAF"
APART = Chains(((0, 10), (10, 22)), index_gap=200)

pieces = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=5)


@given(pieces, st.integers(0, 300))
def test_chains_survive_the_manifest_and_the_store(lengths: list[tuple[int, int]], gap: int) -> None:
    spans, start = [], 0
    for length, linker in lengths:
        spans.append((start, start + length))
        start += length + linker
    chains = Chains(tuple(spans), gap)
    assert Chains.parse(str(chains)) == chains
    assert Chains.of(spans[-1][1], chains.breaks, chains.linkers, gap) == chains
    positions = chains.positions()
    expected = [i + gap * sum(i >= begin for begin in chains.breaks) for i in range(spans[-1][1])]
    assert (list(range(spans[-1][1])) if positions is None else positions.tolist()) == expected


@pytest.mark.parametrize("spans", [(), ((1, 3),), ((0, 3), (2, 5)), ((0, 3), (3, 3)), ((3, 0),)])
def test_spans_that_make_no_sense_are_refused(spans: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="start at 0"):
        Chains(spans)


def test_chains_must_fit_the_sequence() -> None:
    with pytest.raises(ValueError, match="of a sequence of 22"):
        Protein("x", SEQUENCE, chains=Chains(((0, 10), (10, 21))))


def test_the_same_residues_in_other_chains_are_computed_again() -> None:
    variants = [
        None,
        Chains(((0, 10), (10, 22))),
        APART,
        Chains(((0, 9), (9, 22)), 200),
        Chains(((0, 10), (12, 22)), 200),
    ]
    rows = manifest(Protein(f"p{number}", SEQUENCE, chains=chains) for number, chains in enumerate(variants))
    assert not any(row.alias_of for row in rows) and {row.status for row in rows} == {"pending"}
    assert [item.chains for row in rows for item in work_items(row)] == variants
    again = manifest([Protein("a", SEQUENCE, chains=APART), Protein("b", SEQUENCE, chains=APART)])
    assert again[1].alias_of == "a"


def test_an_id_stands_for_one_complex_only() -> None:
    first, second = manifest([Protein("a", SEQUENCE, "one", chains=APART), Protein("a", SEQUENCE, "two")])
    assert (first.status, second.status) == ("pending", "failed") and "other chains (one)" in second.reason
    (known,) = manifest([Protein("a", SEQUENCE, chains=APART)], stored=[Stored("a", "a", SEQUENCE)])
    assert known.status == "failed" and "other chains" in known.reason
    (done,) = manifest([Protein("a", SEQUENCE, chains=APART)], stored=[Stored("a", "a", SEQUENCE, chains=str(APART))])
    assert done.status == "done"


def test_a_block_of_other_chains_is_not_taken_up_again(tmp_path: Path) -> None:
    rows = np.ones((4, 20, 22, 20), dtype=np.float32)
    saved = SavedRows(tmp_path)
    saved.save(WorkItem("a", SEQUENCE, 0, 4, chains=APART), rows)
    for chains, is_there in ((APART, True), (None, False), (Chains(APART.spans, 100), False)):
        found = saved.load(WorkItem("a", SEQUENCE, 0, 4, chains=chains), [rows.shape])
        assert (found is not None) == is_there


def jacobian_of(model: LanguageModel, sequence: str, chains: Chains | None) -> torch.Tensor:
    with jacobian_in_float32():
        task = JacobianTask(AllSubstitutions(), {"jacobian"})
        rows = task.compute(model, WorkItem("a", sequence, 0, len(sequence), chains=chains), 100).arrays["jacobian"]
    assert isinstance(rows, torch.Tensor)
    return rows


def test_a_model_of_two_chains_gives_back_what_couples_them() -> None:
    size, pairs = 9, [(0, 6), (2, 8), (3, 4)]
    generator = torch.Generator().manual_seed(0)
    couplings = torch.zeros(size, 20, size, 20)
    for i, j in pairs:
        couplings[i, :, j] = torch.randn(20, 20, generator=generator)
        couplings[j, :, i] = couplings[i, :, j].T
    model, chains = LinearModel(couplings), Chains(((0, 4), (4, size)), 200)
    jacobian = jacobian_of(model, "MKTAYIAKQ", chains)
    # A model that ignores positions does not see the gap.
    assert torch.equal(jacobian, jacobian_of(model, "MKTAYIAKQ", None))
    found, expected = symmetrize(center(jacobian)), center(couplings)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    scores = contact_map(jacobian).triu(1)
    best = scores.flatten().topk(3).indices
    assert {(int(place) // size, int(place) % size) for place in best} == set(pairs)


@pytest.mark.parametrize("fast", [False, True])
def test_wild_type_and_mutants_are_told_of_the_gap(fast: bool) -> None:
    model, tokens = load_model("debug", fast=fast), torch.from_numpy(encode(SEQUENCE))
    positions = torch.tensor([*range(10), *range(210, 222)])
    wild_type = model.logits(tokens[None], positions)[0]
    expected = torch.zeros(22, 20, 22, 20)
    for i in range(22):
        mutants = tokens.repeat(20, 1)
        mutants[:, i] = torch.arange(20)
        expected[i] = model.logits(mutants, positions) - wild_type
    found = jacobian_of(model, SEQUENCE, APART)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert (found - jacobian_of(model, SEQUENCE, None)).abs().max() > 0.1


def test_predict_keeps_chain_breaks_and_does_not_mix_gaps(predict: Predict, tmp_path: Path) -> None:
    path, store = tmp_path / "c.fasta", tmp_path / "c.zarr"
    path.write_text(">dimer\nMKTAYIAKQR:GSHMLEDPVDAF\n>plain\nMKTAYIAKQRGSHMLEDPVDAF\n")
    arguments = ("+dataset=complex", f"dataset.path={path}", "dataset.linker=null", "model=debug", "threads=1",
                 "keep=[contacts,logits]", f"store={store}")  # fmt: skip
    assert predict(*arguments, "dataset.index_gap=200") == 0
    opened = open_store(store)
    assert opened["dimer"].chains == APART and opened["dimer"].chain_breaks == (10,)
    assert opened["plain"].chains is None and opened["plain"].chain_breaks == ()
    assert not np.allclose(opened["dimer"].contacts, opened["plain"].contacts, atol=1e-2)
    model, tokens = load_model("debug", fast=True), torch.from_numpy(encode(SEQUENCE))
    for name, positions in (("dimer", torch.tensor([*range(10), *range(210, 222)])), ("plain", None)):
        np.testing.assert_allclose(opened[name].logits, model.logits(tokens[None], positions)[0], atol=1e-4)
    assert not any(damage for _, damage in verify(opened, deep=True))
    assert predict(*arguments, "dataset.index_gap=200") == 0
    assert predict(*arguments, "dataset.index_gap=100") == 3
    after = open_store(store)
    (refused,) = [row for row in after.rows if row.status == "failed"]
    assert "another sequence under the id 'dimer', or the same in other chains" in refused.reason
    assert after["dimer"].chains == APART
