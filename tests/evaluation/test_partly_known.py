"""Proteins in windows, or mutated in part: pairs that were not computed are never ranked, counted or printed."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import composed
from written_store import sequence_of, written_store

import plmjac
from plmjac.alphabet import encode
from plmjac.coevolution import coevolution
from plmjac.evaluation import find
from plmjac.evaluation.approximations import Settings as Approximations
from plmjac.evaluation.approximations import _agreement
from plmjac.evaluation.base import Inputs, Outcome, Store
from plmjac.evaluation.false_discovery import false_discovery_rates
from plmjac.evaluation.interchain import interchain_hits
from plmjac.page.explorer import ExplorerProtein
from plmjac.plots import protein_map
from plmjac.plots.maps import MapPanel, contact_maps
from plmjac.records import ContactList, Contacts, Protein
from plmjac.report import report

LENGTH = 40
SEQUENCE = sequence_of(LENGTH)
EXTENTS: dict[str, dict[str, Any]] = {"windows": {"windows": [[0, 24], [16, 40]]}, "positions": {"positions": [10, 22]}}
ROWS = {"windows": (0, LENGTH), "positions": (10, 22)}


def known_of(kind: str) -> np.ndarray:
    known = np.zeros((LENGTH, LENGTH), dtype=bool)
    for start, stop in EXTENTS["windows"]["windows"] if kind == "windows" else ():
        known[start:stop, start:stop] = True
    if kind == "positions":
        known[10:22] = known[:, 10:22] = True
    return known


def scores_of(kind: str, seed: int) -> np.ndarray:
    """A symmetric map of the pairs that this kind knows."""
    scores = np.random.default_rng(seed).normal(size=(LENGTH, LENGTH))
    scores = scores + scores.T
    np.fill_diagonal(scores, 0)
    return np.where(known_of(kind), scores, np.nan)


@pytest.fixture(params=["windows", "positions"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(kind: str, tmp_path: Path) -> Store:
    first, last = ROWS[kind]
    jacobian = np.random.default_rng(3).normal(size=(last - first, 20, LENGTH, 20))
    jacobian = np.where(known_of(kind)[first:last, None, :, None], jacobian, np.nan)
    arrays = {"contacts": scores_of(kind, 1)[first:last], "jacobian": jacobian}
    return written_store(
        tmp_path / "a.zarr", {"p": arrays}, sequences={"p": SEQUENCE}, attributes=EXTENTS[kind]
    )  # fmt: skip


def protein() -> Protein:
    touching = np.random.default_rng(4).random((LENGTH, LENGTH)) < 0.2
    touching = np.triu(touching, 6) | np.triu(touching, 6).T
    return Protein("p", SEQUENCE, structure=ContactList({
        (atom, cutoff): Contacts(touching, np.ones(LENGTH, dtype=bool)) for atom, cutoff in (("cb", 8.0), ("ca", 8.0))
    }))  # fmt: skip


def run(name: str, *stores: Store, structures: Sequence[Protein] = (), **changes: object) -> Outcome:
    """An evaluation with the keys of its YAML, changed; what it prints has no NaN, and its figures can be drawn."""
    config = composed("evaluate", f"+evaluation={name}", *changes.pop("words", ()))  # type: ignore[arg-type, misc]
    assert isinstance(config["evaluation"], dict)
    settings = find(name).Settings.model_validate({**config["evaluation"], **changes})
    outcome = find(name).evaluate(Inputs(stores, lambda: structures or [protein()]), settings)
    assert not re.search(r"\bnan\b", outcome.text, re.IGNORECASE), outcome.text
    for draw in (*outcome.figures.values(), *outcome.pictures.values()):
        draw().canvas.draw()
    return outcome


def test_the_precision_is_that_of_the_pairs_there_are(kind: str, store: Store) -> None:
    contacts = protein().structure.contacts("cb", 8.0)  # type: ignore[union-attr]
    table = run("contact_precision", store).tables["contact_precision"]
    (row,) = table[(table["range"] == "all") & (table["atom"] == "cb") & (table["map"] == "contacts")].to_dict(
        "records"
    )
    first, second = np.triu_indices(LENGTH, 6)
    there = known_of(kind)[first, second]
    order = np.argsort(-scores_of(kind, 1).astype(np.float32)[first, second][there], kind="stable")
    hits = contacts.pairs[first, second][there][order]
    assert row["P@L"] == pytest.approx(hits[:LENGTH].mean()) and row["chance"] == pytest.approx(hits.mean())


def test_only_pairs_that_were_computed_are_listed(kind: str, store: Store) -> None:
    known = known_of(kind)
    best = run("best_pairs", store, pairs=1000)
    table = best.tables["best_pairs"]
    assert len(table) == np.triu(known, 6).sum() and table["score"].notna().all()
    assert known[table["i"].astype(int), table["j"].astype(int)].all()
    assert best.files and not any(re.search(rb"\bnan\b", data, re.IGNORECASE) for data in best.files.values())
    counted = run("capacity", store).tables["couplings_above_noise"].iloc[0]
    assert counted["pairs"] == np.triu(known, 6).sum() and counted["pairs above noise"] >= 0
    assert counted["reason"].startswith("single couplings: its Jacobian ")


def test_evaluations_of_whole_jacobians_say_why_not(store: Store, tmp_path: Path) -> None:
    alignment = tmp_path / "p.a3m"
    alignment.write_text(f">p\n{SEQUENCE}\n>q\n{SEQUENCE}\n")
    for name, changes in (
        ("fingerprints", {}),
        ("coupling_correlation", {"words": (f"evaluation.alignments={tmp_path}",)}),
    ):
        outcome = run(name, store, **changes)
        assert outcome.scored == 0 and "its Jacobian " in outcome.text and " only" in outcome.text


def brute_precision(scores: np.ndarray, there: np.ndarray, count: int) -> float:
    """Share of contacts among the first `count` pairs from the highest score down, of those `there`."""
    contacts = protein().structure.contacts("cb", 8.0)  # type: ignore[union-attr]
    pairs = [(-scores[i, j], i, j) for i in range(LENGTH) for j in range(i + 6, LENGTH) if there[i, j]]
    return float(np.mean([contacts.pairs[i, j] for _, i, j in sorted(pairs)[:count]]))


def test_heads_are_scored_on_the_pairs_there_are(kind: str, tmp_path: Path) -> None:
    """A protein of which no contact stands in a window has a reason, and does not spoil the mean of the others."""
    heads = np.array([[scores_of("windows", 1), scores_of("windows", 2)], [scores_of("windows", 3)] * 2])
    if kind == "positions":  # attention is that of the whole protein
        heads = np.nan_to_num(heads)
    whole = ~np.isnan(heads[0, 0])
    arrays = {"attention_heads": heads, "contacts": scores_of(kind, 4)[slice(*ROWS[kind])]}
    store = written_store(
        tmp_path / "h.zarr", {"p": arrays, "q": arrays}, sequences={"p": SEQUENCE, "q": sequence_of(LENGTH, 1)},
        attributes=EXTENTS[kind],
    )  # fmt: skip
    apart = protein().structure.contacts("cb", 8.0).pairs & ~known_of("windows") & ~known_of(kind)  # type: ignore[union-attr]
    other = ContactList({("cb", 8.0): Contacts(apart, np.ones(LENGTH, dtype=bool))})
    structures = [protein(), Protein("q", sequence_of(LENGTH, 1), structure=other)]
    outcome = run("attention_heads", store, structures=structures, k=2, sweep=[1, 4], range="all")
    table = outcome.tables["attention_heads_by_protein"]
    assert ("not scored: q: the structure has no contact in this range" in outcome.text) == (kind == "windows")
    found = table[table["protein"] == "p"]["P@L/2"].tolist()
    assert found == pytest.approx([brute_precision(head.astype(np.float32), whole, LENGTH // 2)
                                   for layer in heads for head in layer])  # fmt: skip
    sweep = outcome.tables["attention_sweep"].set_index(["map", "k"])
    by_protein = outcome.tables["attention_sweep_by_protein"].set_index(["protein", "map"])["P@L/2"]
    assert sweep.loc[("contacts", 0), "n"] == 1 and np.isfinite(sweep["P@L/2"]).all()
    assert by_protein["p", "contacts"].item() == pytest.approx(
        brute_precision(scores_of(kind, 4), known_of(kind), LENGTH // 2)
    )


def test_baselines_are_scored_on_the_pairs_of_the_store(kind: str, store: Store, tmp_path: Path) -> None:
    families = tmp_path / "families"
    families.mkdir()
    rows = [SEQUENCE, *(sequence_of(LENGTH, seed) for seed in range(1, 60))]
    (families / "p.a3m").write_text("".join(f">s{at}\n{row}\n" for at, row in enumerate(rows)))
    outcome = run(
        "linear_baselines", store, words=(f"evaluation.alignments={families}",), maps=None, iterations=2, bootstrap=10
    )  # fmt: skip
    table = outcome.tables["linear_baselines"]
    found = table[table["range"] == "all"].set_index("method")
    assert len(found) == 4 and (found["pairs"] == np.triu(known_of(kind), 6).sum()).all()
    states = encode("".join(rows)).reshape(60, LENGTH).astype(np.int8)
    covariance = coevolution(states)[1].astype(np.float32)
    for method, scores in (("contacts", scores_of(kind, 1).astype(np.float32)), ("inverse_covariance", covariance)):
        expected = [brute_precision(scores, known_of(kind), LENGTH // part) for part in (1, 2, 5)]
        assert found.loc[method, ["P@L", "P@L/2", "P@L/5"]].tolist() == pytest.approx(expected)


def test_false_discovery(kind: str, store: Store, tmp_path: Path) -> None:
    null = written_store(
        tmp_path / "n.zarr", {"p": {"contacts": scores_of(kind, 2)[slice(*ROWS[kind])]}}, sequences={"p": SEQUENCE},
        attributes=EXTENTS[kind], dataset={"name": "demo", "control": "shuffle", "control_seed": 0},
    )  # fmt: skip
    outcome = run("false_discovery", store, null, pairs=1000)
    table = outcome.tables["false_discovery"]
    known = np.triu(known_of(kind), 6)
    ours, theirs = (scores_of(kind, seed).astype(np.float32)[known].astype(np.float64) for seed in (1, 2))
    expected = np.sort(false_discovery_rates(ours, theirs))
    assert outcome.scored == 1 and len(table) == known.sum()
    np.testing.assert_allclose(np.sort(table["fdr"]), expected)


def test_maps_of_two_stores_and_relatives(kind: str, store: Store, tmp_path: Path) -> None:
    alignment = tmp_path / "f.a3m"
    alignment.write_text(f">p\n{SEQUENCE}\n>rel\n{SEQUENCE[:30]}{'-' * 10}\n")
    row = run("relatives", store, words=(f"evaluation.alignment={alignment}",)).tables["relatives"].iloc[0]
    assert row["pairs"] == np.triu(known_of(kind), 6).sum() and np.isfinite(row["P@L"])
    both = [protein(), replace(protein(), id="q")]
    table = run("conformations", store, structures=both, words=("evaluation.a=p", "evaluation.b=q")).tables[
        "conformations"
    ]
    assert (table["precision"].dropna() <= 1).all() and len(table.dropna(subset="recall"))
    settings = Approximations.model_validate(composed("evaluate", "+evaluation=approximations")["evaluation"])
    scores = scores_of(kind, 1)
    assert _agreement(scores, scores, settings) == {"pearson": pytest.approx(1.0), "overlap": 1.0}
    hits = interchain_hits(scores, protein().structure.contacts("cb", 8.0), (0, 15), (15, 40))  # type: ignore[union-attr]
    assert len(hits) == known_of(kind)[:15, 15:].sum()


def test_pictures_and_report(kind: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, stored = scores_of(kind, 1), store.opened["p"]
    shown = ExplorerProtein("p", SEQUENCE, {"contacts": scores}).encoded()["maps"]["contacts"]
    assert shown["low"] == np.nanmin(scores) and shown["high"] == np.nanmax(scores)
    contacts = protein().structure.contacts("cb", 8.0)  # type: ignore[union-attr]
    figures = [
        plmjac.plot_contacts(stored), plmjac.plot_contacts(scores, sequence=SEQUENCE),
        contact_maps([MapPanel("p", scores, contacts)], "maps"),
        protein_map(scores, (np.array([10]), np.array([20])), np.array([1.0]), contacts=contacts),
    ]  # fmt: skip
    for figure in figures:
        figure.canvas.draw()
        for axes in figure.axes:
            for image in axes.images:
                assert np.isfinite(image.get_clim()).all()
    out = tmp_path / "report.html"
    assert report(composed("report", f"store={store.path}", f"out={out}")) == 0
    assert not re.search(r"(?<![\w/+])NaN(?![\w/+=])", out.read_text().split('id="data">')[1].split("</script>")[0])


def test_couplings_of_windows_are_the_mean_over_those_that_have_both(store: Store, kind: str) -> None:
    stored = store.opened["p"]
    if kind == "positions":
        assert stored.partly == "its Jacobian has the rows of the mutated residues 10:22 only"
        return
    raw, expected = stored.jacobian.astype(np.float64), []
    for start, stop in stored.windows:
        part = raw[start:stop, :, start:stop]
        for axis in range(4):
            part = part - part.mean(axis=axis, keepdims=True)
        expected.append((part[17 - start, :, 22 - start] + part[22 - start, :, 17 - start].T) / 2)
    np.testing.assert_allclose(stored.couplings(17, 22), np.mean(expected, axis=0), atol=1e-4)
    with pytest.raises(ValueError, match=r"couplings of \(0, 39\) were not computed: no window has both"):
        stored.couplings(0, 39)
