"""scripts/train_tiny.py at toy size: one seed gives one loss curve, resumed or not, and every equivalence it claims."""

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import gemmi
import numpy as np
import pytest
import torch
from esm.modules import ContactPredictionHead
from safetensors import safe_open

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_tiny.py"
LETTERS = "LAGVSERTIDPKQNFYMHWC"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_tiny", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_tiny"] = module
    spec.loader.exec_module(module)
    return module


tiny = _load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two families of 40 random sequences, one with gaps, in the layout of the real data."""
    rng = np.random.default_rng(0)
    alignments = tmp_path / "data" / "alignments"
    alignments.mkdir(parents=True)
    queries = []
    for family, length in (("FAM1", 14), ("FAM2", 18)):
        rows = rng.choice(list(LETTERS), (40, length))
        rows[1:][rng.random((39, length)) < 0.1] = "-"
        lines = [f">seq{k}\n{''.join(row)}\n" for k, row in enumerate(rows)]
        (alignments / f"{family}.fasta").write_text("".join(lines), encoding="utf-8")
        queries.append(f">S{family}_A {family}\n{''.join(rows[0])}\n")
    (alignments.parent / "queries.fasta").write_text("".join(queries), encoding="utf-8")
    return alignments.parent


def _settings(**changes: object) -> object:
    values: dict[str, object] = {
        "families": [], "layers": 2, "width": 16, "heads": 2, "steps": 8, "decay_steps": 2, "batch_size": 4,
        "mask_rate": 0.25, "optimizer": "muon", "sharpness": 5.0,
        "lr": 0.02, "adam_lr": 3e-3, "weight_decay": 0.05, "ungap": 0.3, "flank": 0.5, "crop": 0.3,
        "max_flank": 3, "seed": 1,
    }  # fmt: skip
    return tiny.Settings(**{**values, **changes})


def _curve(out: Path) -> list[list[float]]:
    with (out / "loss.csv").open(encoding="utf-8") as file:
        return [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]


def _train(folder: Path, out: Path, **changes: object) -> list[list[float]]:
    tiny.train(folder, out, _settings(**changes), every=2, compiled=False)
    return _curve(out)


def test_same_seed_same_curve_and_another_seed_another(folder: Path, tmp_path: Path) -> None:
    first = _train(folder, tmp_path / "a")
    assert [row[0] for row in first] == [2, 4, 6, 8]
    assert _train(folder, tmp_path / "b") == first
    assert _train(folder, tmp_path / "c", seed=2) != first


def test_resumed_equals_uninterrupted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dies after the checkpoint of step 4, with steps done since: nothing of them may remain."""
    whole = _train(folder, tmp_path / "a")
    original = tiny.Journal.on_train_batch_end

    def dies(self: object, trainer: object, *rest: object) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(tiny.Journal, "on_train_batch_end", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        _train(folder, tmp_path / "b")
    monkeypatch.undo()
    with (tmp_path / "b" / "loss.csv").open("a", encoding="utf-8") as file:
        file.write("6,9.9,9.9\r\n")
    assert _train(folder, tmp_path / "b") == whole
    ends = [tiny.load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in "ab"]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_other_settings_are_refused_but_more_steps_are_not(folder: Path, tmp_path: Path) -> None:
    _train(folder, tmp_path / "a", steps=2, decay_steps=0)
    with pytest.raises(SystemExit, match="other lr"):
        _train(folder, tmp_path / "a", lr=0.1)
    longer = _train(folder, tmp_path / "a", steps=8)
    assert longer == _train(folder, tmp_path / "b", steps=8)


def test_fast_forward_equals_fair_esm() -> None:
    """With padding, masks, gaps and any length; logits to 1e-4, and the gradient of the loss as well."""
    model = tiny.new_model(3, 32, 4, seed=0)
    rng = np.random.default_rng(0)
    for lengths in ([1], [2, 9, 30], [70, 70]):
        rows = [rng.choice([*range(4, 24), 30], length) for length in lengths]
        tokens, _ = tiny.corrupt(tiny.pad(rows, max(lengths) + 2), rng, 0.3, with_gaps=True)
        batch = torch.from_numpy(tokens)
        real = batch != tiny.PAD
        torch.testing.assert_close(
            tiny.fast_logits(model, batch)[real], model(batch)["logits"][real], atol=1e-4, rtol=1e-4
        )
    chosen = torch.arange(3)
    loss = tiny.masked_loss(model, batch, chosen, torch.tensor([4, 5, 6]))
    slow = torch.nn.functional.cross_entropy(model(batch)["logits"].flatten(0, 1)[chosen], torch.tensor([4, 5, 6]))
    torch.testing.assert_close(loss, slow, atol=1e-5, rtol=1e-5)
    gradient = torch.autograd.grad(loss, model.layers[0].fc1.weight)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(slow, model.layers[0].fc1.weight)[0], atol=1e-5, rtol=1e-3)


def test_heads_start_at_their_offsets() -> None:
    model = tiny.new_model(2, 64, 4, seed=0, sharpness=5.0)
    tokens = torch.randint(4, 24, (1, 60), generator=torch.Generator().manual_seed(0))
    attention = model(tokens, need_head_weights=True)["attentions"][0]
    for head, offset in enumerate((-1, 1, -2, 2)):
        assert int(attention[0, head, 30].argmax()) == 30 + offset


def test_masking_is_esm2s() -> None:
    rng = np.random.default_rng(0)
    tokens = tiny.pad([rng.choice([*range(4, 24), 30], 200) for _ in range(500)], 204)
    corrupted, selected = tiny.corrupt(tokens, rng, 0.15, with_gaps=False)
    residues = (tokens >= 4) & (tokens < 24)
    assert selected[residues].mean() == pytest.approx(0.15, abs=0.005)
    assert not selected[~residues].any()
    assert (corrupted[~selected] == tokens[~selected]).all()
    masked = corrupted[selected] == tiny.MASK_TOKEN
    kept = corrupted[selected] == tokens[selected]
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 20, abs=0.01)
    assert corrupted[selected & (corrupted != tiny.MASK_TOKEN)].max() < 24
    _, with_gaps = tiny.corrupt(tokens, rng, 0.15, with_gaps=True)
    assert with_gaps[tokens == tiny.GAP_TOKEN].mean() == pytest.approx(0.15, abs=0.01)


def test_families_have_equal_shares_and_the_held_out_tenth_is_never_drawn(folder: Path) -> None:
    corpus = tiny.corpus_of(folder, _settings(ungap=0.0, flank=0.0, crop=0.0, mask_rate=0.2))
    seen = {family.name: 0 for family in corpus.families}
    held_out = {tuple(row) for family in corpus.families for row in family.held_out}
    assert [len(family.held_out) for family in corpus.families] == [4, 4]
    trained = {tuple(row): family.name for family in corpus.families for row in family.train}
    for step in range(20):
        batch = corpus.batch(step)
        tokens = batch.tokens.clone()
        real = batch.targets != -100
        tokens.view(-1)[batch.selected[real]] = batch.targets[real]
        for row in tokens.tolist():
            clean = tuple(token for token in row if token not in (tiny.CLS, tiny.EOS, tiny.PAD))
            if clean in trained:  # surplus targets stay masked and are not found
                seen[trained[clean]] += 1
            assert clean not in held_out
    assert min(seen.values()) > 0.3 * sum(seen.values())


def test_augmentation_adds_flanks_within_its_room(folder: Path) -> None:
    augmentation = tiny.Augmentation(ungap=1.0, flank=1.0, crop=0.0, max_flank=5)
    row = np.array([4, tiny.GAP_TOKEN, 5, 6, tiny.GAP_TOKEN, 7])
    lengths = set()
    for seed in range(50):
        longer = augmentation(row, np.random.default_rng(seed), np.full(20, 0.05), 9)
        assert tiny.GAP_TOKEN not in longer and "4, 5, 6, 7" in str(longer.tolist())
        lengths.add(len(longer))
    assert lengths == set(range(4, 10))


def test_rate_before_the_decay_does_not_know_the_end() -> None:
    assert [tiny.rate_factor(step, 1000, 100) for step in (0, 99, 500)] == [0.01, 1.0, 1.0]
    assert tiny.rate_factor(950, 1000, 100) == 0.5
    assert tiny.rate_factor(500, 5000, 100) == 1.0


def test_orthogonalized_singular_values_are_near_one() -> None:
    matrices = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(tiny.orthogonalize(matrices))
    assert float(values.min()) > 0.5 and float(values.max()) < 1.5


def test_contact_features_equal_brute_force_and_esms_head() -> None:
    model = tiny.new_model(2, 16, 2, seed=0).eval()
    sequence = "LAGVSERTIDPKQ"
    features = tiny.attention_features(model, sequence)
    tokens = tiny.esm_tokens(sequence)[None]
    with torch.no_grad():
        attentions = model(tokens, need_head_weights=True)["attentions"]
    for layer, head in ((0, 1), (1, 0)):
        raw = attentions[0, layer, head, 1:-1, 1:-1].numpy()
        both = raw + raw.T
        for i, j in ((0, 5), (7, 2)):
            expected = both[i, j] - both[i].sum() * both[:, j].sum() / both.sum()
            assert features[i, j, layer * 2 + head] == pytest.approx(expected, abs=1e-6)
    head = ContactPredictionHead(4, True, True, eos_idx=2)
    with torch.no_grad():
        published = torch.logit(head(tokens, attentions))[0].numpy()
    weight = head.regression.weight.detach().numpy()[0]
    np.testing.assert_allclose(features @ weight + float(head.regression.bias.detach()), published, atol=1e-4)


def test_contact_head_finds_the_head_that_sees_contacts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    contacts = np.triu(rng.random((40, 40)) < 0.1, 6)
    contacts |= contacts.T
    noise = rng.normal(size=(40, 40, 3)).astype(np.float32)
    noise[..., 1] += 4 * contacts
    monkeypatch.setattr(tiny, "attention_features", lambda model, sequence: noise)
    domain = tiny.Domain("F", "S_A", "L" * 40, 0, 40, contacts, np.zeros((40, 40)))
    weights, bias = tiny.fit_contact_head(None, [domain], seed=0)
    assert weights[1] > 1 and abs(weights[[0, 2]]).max() < 0.5 and bias < 0


def test_precision_is_that_of_the_best_half_length() -> None:
    contacts = np.zeros((8, 8), dtype=bool)
    contacts[0, 6] = contacts[6, 0] = True
    scores = np.zeros((8, 8))
    scores[0, 6] = 3.0
    scores[0, 1] = 9.0  # too near to count
    assert tiny.precision(scores, contacts, 8) == 1.0
    assert tiny.precision(scores, contacts) == pytest.approx(1 / 3)


def _write_structure(path: Path, sequence: str) -> None:
    """A chain on a random walk, C-alpha and C-beta only, with two residues before the domain."""
    model = gemmi.Model("1" if gemmi.__version__ < "0.7" else 1)
    chain = gemmi.Chain("A")
    rng = np.random.default_rng(0)
    place = np.zeros(3)
    for number, letter in enumerate("GS" + sequence, start=1):
        residue = gemmi.Residue()
        residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA)
        residue.seqid = gemmi.SeqId(str(number))
        place = place + rng.normal(size=3) * 2.2
        for name in ("CA",) if letter == "G" else ("CA", "CB"):
            atom = gemmi.Atom()
            atom.name, atom.element, atom.pos = name, gemmi.Element("C"), gemmi.Position(*place)
            residue.add_atom(atom)
        chain.add_residue(residue)
    structure = gemmi.Structure()
    model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(path))


def test_finish_writes_the_file_and_a_table_of_all_families(folder: Path, tmp_path: Path) -> None:
    (folder / "structures").mkdir()
    for family in tiny.load_families(folder, []):
        _write_structure(folder / "structures" / f"{family.structure}.pdb", family.query)
    _train(folder, tmp_path / "run", steps=2)
    rows = tiny.finish(folder, tmp_path / "run", tmp_path / "tiny.safetensors", ["FAM2"])
    assert [(row["family"], row["length"], row["head_fitted_here"]) for row in rows] == [
        ("FAM1", 14, False),
        ("FAM2", 18, True),
    ]
    assert all(
        0 <= row[name] <= 1 for row in rows for name in ("jacobian", "jacobian_in_chain", "contact_head", "chance")
    )
    with safe_open(tmp_path / "tiny.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["training"])
        assert facts["steps_done"] == 2 and facts["contact_head_fitted_on"] == ["FAM2"]
        assert file.get_tensor("esm.contact_head.regression.weight").shape == (1, 4)


def test_file_has_the_names_of_hugging_face(tmp_path: Path) -> None:
    """transformers reads it under these names and gives the same logits."""
    transformers = pytest.importorskip("transformers", reason="transformers is a development dependency")
    model = tiny.new_model(2, 16, 2, seed=0).eval()
    path = tmp_path / "tiny.safetensors"
    tiny.write_file(model, path, {"seed": 0})
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        assert json.loads(file.metadata()["training"]) == {"seed": 0}
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    other = transformers.EsmForMaskedLM(transformers.EsmConfig(**config)).eval()
    tensors["lm_head.decoder.weight"] = tensors["esm.embeddings.word_embeddings.weight"]
    missing, unexpected = other.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all("inv_freq" in name or "decoder.bias" in name or "position" in name for name in missing)
    tokens = tiny.esm_tokens("LAGVSERTIDPKQ")[None]
    with torch.no_grad():
        model.load_state_dict(tiny.as_shipped(model.state_dict()))
        torch.testing.assert_close(other(tokens).logits, model(tokens)["logits"], atol=1e-4, rtol=1e-4)
