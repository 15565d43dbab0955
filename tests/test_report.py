"""The report: one file without a network, what it holds decodes to the store's numbers, and a browser shows it."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from structures import pdb_text, walk
from support import composed, signals_kept
from written_store import sequence_of

from plmjac import open_store
from plmjac.datasets import build
from plmjac.metrics import best_pairs
from plmjac.page import document, explorer
from plmjac.page.explorer import couplings_of
from plmjac.predict import predict as run_predict
from plmjac.records import Coordinates, Protein
from plmjac.report import report as run_report

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two demo domains with Jacobians, by the random debug model."""
    store = tmp_path_factory.mktemp("report") / "two.zarr"
    arguments = ["+dataset=demo", "dataset.ids=[2O9S_A,1WVN_A]", "model=debug", "keep=[contacts,jacobian,contact_head]"]
    with signals_kept():
        assert run_predict(composed("predict", *arguments, f"store={store}", "trainer=cpu", "threads=1")) == 0
    return store


def written(store: Path, *overrides: str) -> str:
    assert run_report(composed("report", f"store={store}", *overrides)) == 0
    return Path(f"{store}-report.html").read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    parsed = json.loads(found[1])
    assert isinstance(parsed, dict)
    return parsed


def decoded(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def test_the_page_holds_the_stores_numbers(stored: Path) -> None:
    text = written(stored)
    data, store = data_of(text), open_store(stored)
    assert [protein["id"] for protein in data["proteins"]] == ["2O9S_A", "1WVN_A"]
    domains = {record.id: record.structure for record in build("demo") if isinstance(record, Protein)}
    for protein in data["proteins"]:
        kept, positions = store[protein["id"]], domains[protein["id"]]
        assert isinstance(positions, Coordinates)
        np.testing.assert_allclose(decoded(protein["trace"], "<f4").reshape(-1, 3), positions.alpha, atol=1e-3)
        for name in ("contacts", "contact_head"):
            shown, true = protein["maps"][name], kept.array(name)
            levels = decoded(shown["values"], "<u2").reshape(true.shape).astype(float)
            values = shown["low"] + levels / 65534 * (shown["high"] - shown["low"])
            np.testing.assert_allclose(values, true, atol=(shown["high"] - shown["low"]) / 65534)
        held = protein["couplings"]
        pairs = decoded(held["pairs"], "<u2").reshape(-1, 2)
        blocks = decoded(held["values"], "i1").reshape(-1, 20, 20).astype(float)
        scales = decoded(held["scales"], "<f4")
        assert len(pairs) == len(kept) * (len(kept) - 1) // 2  # a small protein: all of them
        for n in (0, 7, len(pairs) - 1):
            expected = kept.couplings(int(pairs[n, 0]), int(pairs[n, 1]))
            np.testing.assert_allclose(blocks[n] * scales[n] / 127, expected, atol=scales[n] / 127)


def test_the_page_needs_no_network_and_tells_what_was_run(stored: Path) -> None:
    text = written(stored)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//""", text)
    assert not re.search(r"@import|url\(\s*['\"]?http", text)
    attributes = open_store(stored).attributes
    assert attributes["model"]["weights_sha256"] in text and attributes["config_hash"] in text
    assert "2 records: 2 done" in text and "P@L/2" in text and text.count("<svg") >= 1
    identifiers = re.findall(r'<[^>]*\sid="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))


def test_couplings_beyond_the_budget_are_the_lowest_scores() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(12, 12))
    scores += scores.T
    tensor = rng.normal(size=(12, 20, 12, 20)).astype(np.float32)
    few = couplings_of(tensor, scores, budget=10 * 408 + 5)
    ranked = sorted(((scores[i, j], i, j) for i in range(12) for j in range(i + 1, 12)), reverse=True)[:10]
    assert [tuple(pair) for pair in few.pairs] == [(i, j) for _, i, j in ranked]
    for (i, j), values in zip(few.pairs, few.values, strict=True):
        np.testing.assert_array_equal(values, tensor[i, :, j, :])


def test_text_from_files_cannot_become_markup() -> None:
    evil = "</script><script>alert(1)</script>"
    protein = explorer.ExplorerProtein(evil, "AC", {"contacts": np.eye(2)})
    _, script = explorer.explorer([protein])
    assert evil not in script and data_of(script)["proteins"][0]["id"] == evil
    shown = (
        document.table(pd.DataFrame({"id": [evil], "score": [float("nan")]}))
        + document.terms({evil: evil})
        + document.note(evil)
    )
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "nan" not in shown.lower()


def test_the_name_of_a_store_cannot_become_markup(stored: Path, tmp_path: Path) -> None:
    evil = shutil.copytree(stored, tmp_path / '"><img src=x onerror=document.title=1>.zarr')
    assert (
        run_report(
            {**composed("report", "store=x", "max_proteins=1", f"out={tmp_path / 'x.html'}"), "store": [str(evil)]}
        )
        == 0
    )
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "<img" not in text and "&lt;img src=x" in text
    links = set(re.findall(r'<a href="#([^"]*)"', text))
    assert links and links <= set(re.findall(r'<section id="([^"]*)"', text))


def structures(folder: Path) -> tuple[Path, str]:
    """A PDB file whose numbers begin at -3, and its sequence."""
    (folder / "pdb").mkdir()
    sequence = sequence_of(40, 1)
    (folder / "pdb" / "2QNI.pdb").write_text(pdb_text(sequence, 1, first=-3))
    return folder / "pdb", sequence


@pytest.fixture(scope="module")
def with_structure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a store of one chain, computed from its structure."""
    folder = tmp_path_factory.mktemp("structure")
    pdb, _ = structures(folder)
    store = folder / "chain.zarr"
    arguments = ["+dataset=pdb", f"dataset.path={pdb}", "model=debug", f"store={store}", "trainer=cpu", "threads=1"]
    assert run_predict(composed("predict", *arguments)) == 0
    written(store)
    return Path(f"{store}-report.html")


def test_a_structure_brings_its_trace_its_numbers_and_a_caution(with_structure: Path) -> None:
    text = with_structure.read_text(encoding="utf-8")
    (protein,) = data_of(text)["proteins"]
    trace = decoded(protein["trace"], "<f4").reshape(-1, 3)
    np.testing.assert_allclose(trace, walk(40, 1), atol=1e-3)
    assert protein["numbers"] == [str(number) for number in range(-3, 37)]
    assert "WARNING: the model `debug` has random weights" in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the report with")
def test_a_browser_draws_the_structure_and_gives_the_pairs_as_csv(with_structure: Path, tmp_path: Path) -> None:
    """The CSV that the button downloads, and that dragging the structure changes its picture."""
    text = with_structure.read_text(encoding="utf-8")
    script = """<script>addEventListener("load", () => {
      const made = []; URL.createObjectURL = (blob) => { made.push(blob); return "#"; };
      const canvas = document.getElementById("structure"), before = canvas.toDataURL();
      const picture = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      const ink = picture.filter((value) => value < 200).length;
      canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
      document.getElementById("download").click();
      made[0].text().then((csv) => { document.title = JSON.stringify([csv, before !== canvas.toDataURL(), ink]); });
    });</script>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", script + "</body>"), encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [str(BROWSER), *arguments, "--virtual-time-budget=4000", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found is not None
    csv, turned, ink = json.loads(html.unescape(found[1]))
    assert turned and ink > 10_000
    rows = pd.read_csv(io.StringIO(csv))
    stored = open_store(Path(str(with_structure).removesuffix("-report.html")))["2QNI_A"]
    first, second = best_pairs(stored.contacts, 40)
    assert rows["i"].tolist() == first.tolist() and rows["j"].tolist() == second.tolist()
    assert rows["number_i"].tolist() == (first - 3).tolist() and set(rows["contact"]) <= {0, 1}


def test_structures_are_not_needed(tmp_path: Path) -> None:
    (tmp_path / "one.fasta").write_text(">one\nMKTAYIAKQRQISFVKSHFSRQ\n")
    store = tmp_path / "one.zarr"
    arguments = [
        "+dataset=fasta",
        f"dataset.path={tmp_path / 'one.fasta'}",
        "model=debug",
        f"store={store}",
        "trainer=cpu",
    ]
    assert run_predict(composed("predict", *arguments)) == 0
    text = written(store)
    assert data_of(text)["proteins"][0]["truth"] is None and "no structure" in text


@pytest.mark.skipif(BROWSER is None, reason="no chromium to open the report with")
def test_a_browser_runs_the_view_without_an_error(stored: Path, tmp_path: Path) -> None:
    text = written(stored)
    watched = text.replace("<head>", "<head><script>onerror = (m) => { document.title = 'ERROR ' + m; };</script>", 1)
    (tmp_path / "page.html").write_text(watched, encoding="utf-8")
    address = (tmp_path / "page.html").as_uri() + "#1WVN_A:12-50"
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([str(BROWSER), *arguments, address], capture_output=True, text=True, timeout=120)
    stored_one = open_store(stored)["1WVN_A"]
    names = [f"{stored_one.sequence[number - 1]}{number}" for number in (12, 50)]
    assert "<title>ERROR" not in done.stdout
    assert f"{names[0]} and {names[1]}, 38 apart: score {stored_one.contacts[11, 49]:.4f}"[:-1] in done.stdout
    assert "red: favoured together" in done.stdout
    assert len(re.findall(r'<tr data-pair="', done.stdout)) == len(stored_one)
