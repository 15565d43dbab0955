"""Substitutions of each position against mutants made one by one, and whole runs with every kind of substitution."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import jacobian_in_float32, tree

import plmjac
from plmjac import jacobian as method
from plmjac.alphabet import AMINO_ACIDS, MASK, encode
from plmjac.config import UsageError
from plmjac.inference import jacobian_task
from plmjac.inference.jacobian_task import JacobianTask
from plmjac.inference.tasks import Answer
from plmjac.interruption import Interrupted
from plmjac.models import LanguageModel
from plmjac.records import WorkItem
from plmjac.store import open_store, verify
from plmjac.store.reader import maps_are_completed
from plmjac.substitutions import AllSubstitutions, MaskOnly, Subset, Substitutions

Predict = Callable[..., int]
SEQUENCE = "MKTXAYIAKQ"
EVERY: list[Substitutions] = [
    AllSubstitutions(), MaskOnly(), Subset(k=3, choose="WPG"), Subset(k=4, choose="random", seed=1),
    Subset(k=1, choose="likely"), Subset(k=5, choose="unlikely"),
]  # fmt: skip


def one_by_one(model: LanguageModel, sequence: str, letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each mutant in a forward of its own: changes of the logits (L, A, L, 20), of the hidden state (L, L)."""
    wild_type = torch.from_numpy(encode(sequence))[None]
    before = model.read(wild_type, ["logits", "representation"])
    length, number = letters.shape
    changes, strengths = np.zeros((length, number, length, 20)), np.zeros((length, number, length))
    for i in range(length):
        for a in range(number):
            mutant = wild_type.clone()
            mutant[0, i] = int(letters[i, a])
            after = model.read(mutant, ["logits", "representation"])
            changes[i, a] = (after["logits"] - before["logits"])[0].numpy()
            strengths[i, a] = np.sqrt(((after["representation"] - before["representation"])[0].numpy() ** 2).sum(-1))
    return changes, strengths.mean(1)


def plain_maps(changes: np.ndarray, strengths: np.ndarray, letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The contact maps step by step in numpy: of the logits, and of the hidden state.

    The row of an amino acid that was not tried is the mean of those that were; MASK has no place among them.
    """
    J = changes.astype(np.float64)
    if letters.max() < 20:
        J = np.zeros((len(letters), 20, len(letters), 20))
        for i, (native, row) in enumerate(zip(encode(SEQUENCE), letters, strict=True)):
            tried = {letter: changes[i, a] for a, letter in enumerate(row) if letter != native}
            for letter in range(20):
                if letter != native and tried:
                    J[i, letter] = tried.get(letter, sum(tried.values()) / len(tried))
    for axis in range(4):
        if J.shape[axis] > 1:
            J = J - J.mean(axis, keepdims=True)
    if J.shape[1] == 20:
        J = (J + J.transpose(2, 3, 0, 1)) / 2
    F = np.sqrt((J**2).sum((1, 3)))
    F = (F + F.T) / 2
    np.fill_diagonal(F, 0)
    F = F - F.sum(0, keepdims=True) * F.sum(1, keepdims=True) / F.sum()
    np.fill_diagonal(F, 0)
    S = (strengths + strengths.T) / 2
    S = S - S.sum(0, keepdims=True) * S.sum(1, keepdims=True) / S.sum()
    S = (S + S.T) / 2
    np.fill_diagonal(S, 0)
    return F, S


@pytest.mark.parametrize("substitutions", EVERY, ids=str)
@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
def test_changes_are_those_of_mutants_one_by_one(
    debug_model: LanguageModel, substitutions: Substitutions, max_tokens: int
) -> None:
    items = [WorkItem("a", SEQUENCE, *rows) for rows in ((0, 4), (4, 5), (5, 10))]
    with jacobian_in_float32():
        task = JacobianTask(substitutions, {"jacobian", "representation", "contacts"})
        answers = [task.compute(debug_model, item, max_tokens).arrays for item in items]
    tokens = encode(SEQUENCE)
    letters = substitutions.letters(tokens, debug_model.logits(torch.from_numpy(tokens)[None])[0].numpy())
    changes, strengths = one_by_one(debug_model, SEQUENCE, letters)
    # changes reach 20 here (the debug model is loud): float32 leaves them some 1e-5 of that
    np.testing.assert_allclose(torch.cat([each["jacobian"] for each in answers]), changes, rtol=1e-5, atol=1e-4)
    contacts, representation = plain_maps(changes, strengths, letters)
    scale = max(1.0, np.abs(contacts).max())
    np.testing.assert_allclose(answers[-1]["contacts"], contacts, atol=1e-4 * scale)
    np.testing.assert_allclose(answers[-1]["representation"], representation, atol=1e-4)
    assert ("letters" in answers[0]) == isinstance(substitutions, Subset)


def test_letters_are_those_asked_for() -> None:
    tokens, chance = encode(SEQUENCE), np.random.default_rng(0)
    logits = chance.normal(size=(len(tokens), 20))
    assert (MaskOnly().letters(tokens, logits) == MASK).all()
    assert np.array_equal(Subset(k=2, choose="WA").letters(tokens, logits), [[1, 18]] * len(tokens))
    random = Subset(k=6, choose="random", seed=3)
    drawn = random.letters(tokens, logits)
    assert np.array_equal(drawn, random.letters(tokens, 0 * logits)) and (np.diff(drawn) > 0).all()
    assert not np.array_equal(drawn, Subset(k=6, choose="random", seed=4).letters(tokens, logits))
    assert len({tuple(row) for row in drawn}) > 5  # another choice at every position
    for choose, sign in (("likely", -1), ("unlikely", 1)):
        letters = Subset(k=4, choose=choose).letters(tokens, logits)
        for position, token in enumerate(tokens):
            others = [letter for letter in range(20) if letter != token]
            assert letters[position].tolist() == sorted(sorted(others, key=lambda a: sign * logits[position, a])[:4])
    assert not (drawn == tokens[:, None]).any()


def test_every_letter_is_drawn_as_often_as_any_other() -> None:
    tokens = np.zeros(4000, dtype=np.int64)
    drawn = Subset(k=3, choose="random").letters(tokens, np.zeros((4000, 20)))
    counts = np.bincount(drawn.ravel(), minlength=20)
    assert counts[0] == 0 and np.abs(counts[1:] - 12000 / 19).max() < 5 * np.sqrt(12000 / 19)


@pytest.mark.parametrize("substitutions", EVERY, ids=str)
def test_a_run_stores_them_with_their_maps(
    predict: Predict, tmp_path: Path, debug_model: LanguageModel, substitutions: Substitutions
) -> None:
    path, store = tmp_path / "in.fasta", tmp_path / "run.zarr"
    path.write_text(f">a\n{SEQUENCE}\n>b\nM\n")
    keys = [
        f"substitutions.{key}={value}"
        for key, value in substitutions.identity().items()
        if key in ("k", "choose", "seed")
    ]
    arguments = (
        "+dataset=fasta", f"dataset.path={path}", "model=debug", "threads=1", f"store={store}", "rows_per_chunk=4",
        "keep=[contacts,jacobian,representation]", f"substitutions={substitutions.name}", *keys
    )  # fmt: skip
    assert predict(*arguments) == 0
    protein, tokens = open_store(store)["a"], encode(SEQUENCE)
    letters = substitutions.letters(tokens, debug_model.logits(torch.from_numpy(tokens)[None])[0].numpy())
    changes, strengths = one_by_one(debug_model, SEQUENCE, letters)
    np.testing.assert_allclose(protein.jacobian, changes, atol=1e-3 * np.abs(changes).max())
    contacts, representation = plain_maps(changes, strengths, letters)
    np.testing.assert_allclose(protein.contacts, contacts, atol=1e-5 * np.abs(contacts).max())
    np.testing.assert_allclose(protein.array("representation"), representation, atol=1e-5 * representation.max())
    is_subset = isinstance(substitutions, Subset)
    assert ("letters" in protein.names) == is_subset
    if is_subset:
        assert np.array_equal(protein.array("letters"), letters)
        again = plmjac.contact_map(protein.completed)
        np.testing.assert_allclose(again, contacts, atol=2e-3 * np.abs(contacts).max())
        with pytest.raises(ValueError, match="places among all 20"):
            plmjac.contact_map(np.repeat(protein.jacobian[:, :1], 2, axis=1))
    assert open_store(store).attributes["substitutions"] == substitutions.identity()
    assert not any(damages for _, damages in verify(open_store(store), deep=True))
    assert (open_store(store)["b"].contacts == 0).all()
    with pytest.raises(UsageError, match="substitutions"):
        predict(*arguments[: -1 - len(keys)], "substitutions=" + ("mask" if substitutions.name != "mask" else "all"))


def test_all_but_the_wild_type_among_all_is_the_full_jacobian(debug_model: LanguageModel) -> None:
    """The 19 others of each position, in any order, give the map of `substitutions=all`."""
    tokens = torch.from_numpy(encode("MKTWAYIAKQ"))
    full = method.categorical_jacobian(debug_model.logits, tokens)
    others = torch.stack([torch.tensor([b for b in (7 * torch.arange(20) % 20).tolist() if b != a]) for a in tokens])
    some = full[torch.arange(10)[:, None], others]
    torch.testing.assert_close(method.among_all(some, others, tokens), full, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [("mask",), ("subset", "substitutions.choose=random")])
def test_killed_and_resumed_it_has_the_same_bytes(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: tuple[str, ...]
) -> None:
    path = tmp_path / "in.fasta"
    path.write_text(f">a\n{SEQUENCE * 3}\n>b\nMKVWL\n")
    arguments = (
        "+dataset=fasta", f"dataset.path={path}", "model=debug", "threads=1", "rows_per_chunk=6",
        "keep=[contacts,jacobian,representation]", f"substitutions={kind[0]}", *kind[1:],
    )  # fmt: skip
    assert predict(*arguments, f"store={tmp_path / 'undisturbed.zarr'}") == 0
    monkeypatch.setattr(jacobian_task, "SAVE_SECONDS", 0.0)
    original = JacobianTask.compute

    def killed(self: JacobianTask, model: LanguageModel, item: WorkItem, *rest: Any) -> Answer:
        if item.start >= 18:
            raise Interrupted
        return original(self, model, item, *rest)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(JacobianTask, "compute", killed)
        predict(*arguments, f"store={tmp_path / 'killed.zarr'}")
    computed: list[int] = []
    made = jacobian_task.changes
    monkeypatch.setattr(jacobian_task, "changes", lambda *a, **k: computed.append(a[2]) or made(*a, **k))  # type: ignore[func-returns-value]
    assert predict(*arguments, f"store={tmp_path / 'killed.zarr'}") == 0
    assert computed == [18, 24, 0]
    assert tree(tmp_path / "killed.zarr") == tree(tmp_path / "undisturbed.zarr")


def test_a_store_of_before_rows_were_completed_is_read_as_such(predict: Predict, tmp_path: Path) -> None:
    """It has letters, no `symmetrized`, and the map of its norms."""
    store = tmp_path / "run.zarr"
    fasta = tmp_path / "in.fasta"
    fasta.write_text(f">a\n{SEQUENCE}\n")
    subset = ("substitutions=subset", "substitutions.choose=random")
    assert (
        predict("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "keep=[jacobian]", *subset, f"store={store}")
        == 0
    )
    protein = open_store(store)["a"]
    assert protein.completed.shape == (10, 20, 10, 20)
    attributes = open_store(store).attributes
    assert maps_are_completed(attributes)
    earlier = {"substitutions": {**attributes["substitutions"]}}
    del earlier["substitutions"]["symmetrized"]
    assert not maps_are_completed(earlier) and not maps_are_completed({"kind": "recovery"})
    read = dataclasses.replace(protein, is_completed=maps_are_completed(earlier))
    assert np.array_equal(read.completed, protein.jacobian.astype(np.float32))


def test_a_long_protein_is_completed_in_blocks(
    predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of two rows and of all give the same map."""
    fasta = tmp_path / "in.fasta"
    fasta.write_text(f">a\n{SEQUENCE}\n")
    arguments = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", "substitutions=subset")
    assert predict(*arguments, f"store={tmp_path / 'whole.zarr'}") == 0
    monkeypatch.setattr("plmjac.inference.jacobian_task.BLOCK_BYTES", 2 * 1600 * len(SEQUENCE))
    assert predict(*arguments, f"store={tmp_path / 'blocks.zarr'}") == 0
    whole, blocks = (open_store(tmp_path / f"{name}.zarr")["a"].contacts for name in ("whole", "blocks"))
    np.testing.assert_allclose(blocks, whole, atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("substitutions=subset", "substitutions.choose=PWGDA"), "names 5 amino acids and k is 4"),
        (("substitutions=subset", "substitutions.choose=PWGB"), "'B' is no amino acid"),
        (("substitutions=subset", "substitutions.choose=rondom"), "give random, likely, unlikely, or letters"),
        (("substitutions=subset", "substitutions.choose=PPGD"), "twice"),
        (("substitutions=subset", "substitutions.k=20"), "less than or equal to 19"),
        (("substitutions=mask", "+substitutions.k=3"), "no key"),
        (("substitutions=none", "keep=[contact_head]", "model.compiled=true"), "no effect where contact_head"),
    ],
)
def test_mistakes_are_named(predict: Predict, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        predict("+dataset=demo", "model=debug", *overrides)


def test_mask_on_a_linear_model_returns_the_couplings_of_mask(debug_model: LanguageModel) -> None:
    """logits[j, b] = sum over i of W[i, token at i, j, b]: what MASK changes is W[mask] - W[wild type]."""
    from plmjac.models.debug import LinearModel

    couplings = torch.randn(6, 26 + 1, 6, 20, generator=torch.Generator().manual_seed(0))[:, : MASK + 1]
    model = LinearModel(couplings)
    tokens = torch.tensor([3, 7, 0, 19, 22, 4])
    jacobian = method.categorical_jacobian(model.logits, tokens, letters=torch.full((6, 1), MASK))
    expected = couplings[:, MASK] - couplings[torch.arange(6), tokens]
    assert torch.allclose(jacobian[:, 0], expected, atol=1e-5)
    assert len(AMINO_ACIDS) == 20
