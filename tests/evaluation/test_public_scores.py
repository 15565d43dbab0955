"""A public contact set from folder to JSON: the store's own dataset is found, the means are those of a brute force."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import SHARED, composed
from written_store import written_store

from plmjac.evaluation.contact_precision import Settings, evaluate
from plmjac.evaluation.inputs import inputs_of

IDS = ("8JVX_B", "8QX6_A", "8S7A_A")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/cameo_pta")
def test_a_set_made_of_cameo_chains(tmp_path: Path) -> None:
    folder, data = tmp_path / "set", SHARED / "cameo_pta"
    (folder / "contacts").mkdir(parents=True)
    text = (data / "sequences.fasta").read_text()
    records = {part.split()[0]: "".join(part.split("\n")[1:]) for part in text.split(">")[1:]}
    sequences = {name: records[name] for name in IDS}
    (folder / "extracted_sequences.fasta").write_text("".join(f">{n}\n{s}\n" for n, s in sequences.items()))
    source, maps, touching = np.random.default_rng(0), {}, {}
    for name, sequence in sequences.items():
        with np.load(data / "contacts" / f"{name}.npz") as file:
            pairs, resolved = file["contacts"].astype(float), file["valid_residues"].astype(bool)
        pairs = np.maximum(pairs, pairs.T)
        pairs[~resolved, :] = pairs[:, ~resolved] = np.nan
        np.save(folder / "contacts" / f"{name}.npy", pairs)
        touching[name] = pairs
        noise = source.random((len(sequence), len(sequence)))
        maps[name] = {"contacts": np.nan_to_num(pairs) * 0.5 + (noise + noise.T) / 2}
    dataset = {"name": "contact_maps", "path": str(folder), "ids": None}
    store = written_store(tmp_path / "my_set.zarr", maps, sequences=sequences, dataset=dataset, bad=("lost",))
    config = composed("evaluate", "+evaluation=contact_precision")
    assert isinstance(config["evaluation"], dict)
    outcome = evaluate(
        inputs_of([store.path], None, None), Settings.model_validate({**config["evaluation"], "bootstrap": 9})
    )
    document = json.loads(outcome.files["contact_precision.json"])
    found = document["sets"]["my_set"]
    assert (found["model"], found["proteins"], found["not_scored"]) == ("handmade", 3, 1)
    assert list(found["maps"]) == ["contacts"]
    scores = found["maps"]["contacts"]["cb < 8 A"]
    for label, low, high in (("short", 6, 12), ("medium", 12, 24), ("long", 24, 10_000)):
        for measure, part in (("P@L", 1), ("P@L/2", 2), ("P@L/5", 5)):
            expected = []
            for name in IDS:
                stored, known = store.opened[name].contacts, touching[name]
                length = len(stored)
                ranked = sorted(
                    (-stored[i, j], i, j)
                    for i in range(length)
                    for j in range(i + low, min(length, i + high))
                    if np.isfinite(known[i, j])
                )
                hits = [known[i, j] for _, i, j in ranked]
                if any(hits):  # without a contact in the range there is no precision
                    expected.append(np.mean(hits[: max(1, length // part)]))
            assert scores[label][measure] == pytest.approx(np.mean(expected)), (label, measure)
            assert scores[label]["n"] == len(expected) > 0
