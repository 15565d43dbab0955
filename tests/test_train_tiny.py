"""scripts/train_tiny.py at toy size: one seed gives one loss curve, resumed or not, and every equivalence it claims."""

import csv
import json
import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from esm.modules import ContactPredictionHead
from safetensors import safe_open

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from tiny import contacts, data, export, network, optimizer, teacher, training  # noqa: E402

LETTERS = "LAGVSERTIDPKQNFYMHWC"


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


def _settings(**changes: object) -> training.Settings:
    values: dict[str, object] = {
        "families": [], "layers": 2, "width": 16, "heads": 2, "steps": 8, "decay_steps": 2, "batch_size": 4,
        "mask_rate": 0.25, "lr": 0.02, "adam_lr": 3e-3, "weight_decay": 0.05, "column_weight": 0.3,
        "teacher_weight": 1.0, "teacher_steps": 5, "mutation_rate": 0.05, "seed": 1,
    }  # fmt: skip
    return training.Settings(**{**values, **changes})  # type: ignore[arg-type]


def _curve(out: Path) -> list[list[float]]:
    with (out / "loss.csv").open(encoding="utf-8") as file:
        return [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]


def _train(folder: Path, out: Path, **changes: object) -> list[list[float]]:
    training.train(folder, out, _settings(**changes), every=2, compiled=False)
    return _curve(out)


def test_same_seed_same_curve_and_another_seed_another(folder: Path, tmp_path: Path) -> None:
    first = _train(folder, tmp_path / "a")
    assert [row[0] for row in first] == [2, 4, 6, 8]
    assert _train(folder, tmp_path / "b") == first
    assert _train(folder, tmp_path / "c", seed=2) != first


def test_resumed_equals_uninterrupted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dies after the checkpoint of step 4, with steps done since: nothing of them may remain."""
    whole = _train(folder, tmp_path / "a")
    original = training.Journal.on_train_batch_end

    def dies(self: object, trainer: object, *rest: object) -> None:
        original(self, trainer, *rest)
        if trainer.global_step == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Journal, "on_train_batch_end", dies)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        _train(folder, tmp_path / "b")
    monkeypatch.undo()
    with (tmp_path / "b" / "loss.csv").open("a", encoding="utf-8") as file:
        file.write("6,9.9,9.9\r\n")
    assert _train(folder, tmp_path / "b") == whole
    ends = [training.load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in "ab"]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_other_settings_are_refused_but_more_steps_are_not(folder: Path, tmp_path: Path) -> None:
    _train(folder, tmp_path / "a", steps=2, decay_steps=0)
    with pytest.raises(SystemExit, match="other lr"):
        _train(folder, tmp_path / "a", lr=0.1)
    longer = _train(folder, tmp_path / "a", steps=8)
    assert longer == _train(folder, tmp_path / "b", steps=8)


def test_fast_forward_equals_fair_esm() -> None:
    """With padding, masks, gaps and any length; logits to 1e-4, and the gradient of the loss as well."""
    model = network.new_model(3, 32, 4, seed=0)
    rng = np.random.default_rng(0)
    for lengths in ([1], [2, 9, 30], [70, 70]):
        rows = [rng.choice([*range(4, 24), 30], length) for length in lengths]
        tokens, _ = data.corrupt(data.frame(rows, max(lengths) + 2), rng, 0.3)
        batch = torch.from_numpy(tokens)
        real = batch != data.PAD
        torch.testing.assert_close(
            network.fast_logits(model, batch)[real], model(batch)["logits"][real], atol=1e-4, rtol=1e-4
        )
    chosen = torch.arange(3)
    loss = network.masked_loss(model, batch, chosen, torch.tensor([4, 5, 6]))
    slow = torch.nn.functional.cross_entropy(model(batch)["logits"].flatten(0, 1)[chosen], torch.tensor([4, 5, 6]))
    torch.testing.assert_close(loss, slow, atol=1e-5, rtol=1e-5)
    gradient = torch.autograd.grad(loss, model.layers[0].fc1.weight)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(slow, model.layers[0].fc1.weight)[0], atol=1e-5, rtol=1e-3)


def test_training_loss_adds_that_of_the_column() -> None:
    """Against targets picked one by one; a place that is ignored counts in neither part."""
    model, head = network.new_model(2, 16, 2, seed=0), network.ColumnHead(16, 6)
    tokens = torch.tensor([[0, 4, 32, 6, 2], [0, 32, 8, 32, 2]])
    selected, targets = torch.tensor([2, 6, 8, 0]), torch.tensor([9, 10, 11, data.IGNORED])
    columns, tables = torch.tensor([1, 3, 5, data.IGNORED]), network.rotary_tables(5, 8)
    total, masked = network.training_losses(model, head, 0.5, tables, tokens, selected, targets, columns)
    by_hand = torch.nn.functional.cross_entropy(model(tokens)["logits"].flatten(0, 1)[[2, 6, 8]], targets[:3])
    torch.testing.assert_close(masked, by_hand, atol=1e-5, rtol=1e-5)
    first = model(tokens, repr_layers=[1])["representations"][1].flatten(0, 1)[[2, 6, 8]]
    column = torch.nn.functional.cross_entropy(head(first), columns[:3])
    torch.testing.assert_close(total, by_hand + 0.5 * column, atol=1e-5, rtol=1e-5)


def test_taught_loss_adds_the_divergence_from_the_teacher() -> None:
    """Against a sum over places and amino acids in Python; a residue that is seen is left out of both shares."""
    model, head = network.new_model(2, 16, 2, seed=0), network.ColumnHead(16, 6)
    tokens = torch.tensor([[0, 4, 32, 6, 2], [0, 32, 8, 32, 2]])
    given = (network.rotary_tables(5, 8), tokens, torch.tensor([2, 6]), torch.tensor([9, 10]), torch.tensor([1, 3]))
    places = torch.tensor([2, 3, 6])
    seen = torch.zeros(3, 20, dtype=torch.bool)
    seen[1, 6 - 4] = True
    expected = torch.randn(3, 20, generator=torch.Generator().manual_seed(0)).masked_fill(seen, -torch.inf)
    wanted = expected.softmax(dim=-1)
    total, masked = network.taught_losses(model, head, 0.5, 2.0, *given, places, wanted, seen)
    plain, same = network.training_losses(model, head, 0.5, *given)
    logits = model(tokens)["logits"].detach().flatten(0, 1)[places, 4:24].double()
    divergence = 0.0
    for k in range(3):
        allowed = [b for b in range(20) if not seen[k, b]]
        normalizer = sum(float(logits[k, b].exp()) for b in allowed)
        for b in allowed:
            share = float(logits[k, b].exp()) / normalizer
            divergence += float(wanted[k, b]) * (np.log(float(wanted[k, b])) - np.log(share)) / 3
    torch.testing.assert_close(masked, same)
    assert float(total.detach()) == pytest.approx(float(plain.detach()) + 2 * divergence, abs=1e-4)


def test_a_lesson_is_the_conditional_of_the_field(folder: Path, tmp_path: Path) -> None:
    """Every place against fields and couplings summed residue by residue; the mutated sequence is what counts."""
    corpus = training.corpus_of(folder, _settings(batch_size=8))
    taught = teacher.Teacher(corpus.families, tmp_path / "teacher")
    for step in (0, 1):
        batch, drawn = corpus.batch(step, 0.2), corpus.drawn(step)
        lesson = taught.lesson(batch, drawn, corpus.families, np.random.default_rng(0))
        assert len(lesson.places) > 50 and lesson.wanted.sum(dim=1).allclose(torch.ones(len(lesson.places)))
        for place, wanted, seen in zip(*lesson, strict=True):
            row, column = divmod(int(place), batch.clean.shape[1])
            fields, pairs = taught.fields[drawn[row].name]
            states = [20 if token == data.GAP_TOKEN else token - 4 for token in batch.clean[row].tolist()]
            i = column - 1
            logits = fields[i].double().clone()
            for j in range(len(fields)):
                logits += pairs[j, states[j + 1], i].double() if j != i else 0
            shown = int(batch.tokens[row, column])
            assert seen.tolist() == [shown == 4 + b for b in range(20)]
            logits[20] = -torch.inf  # no lesson is of gaps
            if shown != data.MASK_TOKEN:
                logits[shown - 4] = -torch.inf
            torch.testing.assert_close(wanted.double(), logits.softmax(dim=0)[:20], atol=1e-5, rtol=1e-4)


def test_a_lesson_has_one_size_whatever_was_drawn(folder: Path, tmp_path: Path) -> None:
    """Three sequences of two families: one step has two of the first, the next two of the second."""
    corpus = training.corpus_of(folder, _settings(batch_size=3))
    taught = teacher.Teacher(corpus.families, tmp_path / "teacher")
    sizes = set()
    for step in range(4):
        given = (corpus.batch(step), corpus.drawn(step), corpus.families)
        sizes.add(len(taught.lesson(*given, np.random.default_rng(step)).places))
    assert len(sizes) == 1 and {len({f.name for f in corpus.drawn(step)}) for step in range(4)} == {2}


def test_a_field_of_other_sequences_is_not_taken(folder: Path, tmp_path: Path) -> None:
    (family,) = data.load_families(folder, ["FAM1"])
    other = data.Family("FAM1", "S_A", "", family.train[::-1, ::-1].copy(), family.held_out)
    first = teacher.Teacher([family], tmp_path).fields["FAM1"]
    assert torch.equal(teacher.Teacher([family], tmp_path).fields["FAM1"][1], first[1])
    assert not torch.equal(teacher.Teacher([other], tmp_path).fields["FAM1"][1], first[1])


def test_the_end_of_the_teacher_is_not_changed_once_it_is_past(folder: Path, tmp_path: Path) -> None:
    _train(folder, tmp_path / "a", steps=6, teacher_steps=4)
    for changed in (5, 8):
        with pytest.raises(SystemExit, match="teacher_steps"):
            _train(folder, tmp_path / "a", steps=8, teacher_steps=changed)
    _train(folder, tmp_path / "b", steps=2, teacher_steps=4, decay_steps=0)
    whole = _train(folder, tmp_path / "c", steps=6, teacher_steps=3)
    assert _train(folder, tmp_path / "b", steps=6, teacher_steps=3) == whole


def test_held_out_sequences_teach_nothing(folder: Path, tmp_path: Path) -> None:
    families = data.load_families(folder, ["FAM1"])
    first = teacher.Teacher(families, tmp_path / "a").fields["FAM1"]
    shuffled = [data.Family(f.name, f.structure, f.query, f.train, f.held_out[::-1] * 0 + 4) for f in families]
    second = teacher.Teacher(shuffled, tmp_path / "b").fields["FAM1"]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_mutated_residues_are_never_targets() -> None:
    rng = np.random.default_rng(0)
    tokens = data.frame([rng.choice([*range(4, 24), 30], 200) for _ in range(100)], 202)
    changed, mutated = data.mutate(tokens, rng, 0.3)
    assert mutated[data.is_residue(tokens)].mean() == pytest.approx(0.3, abs=0.01)
    assert (changed[~mutated] == tokens[~mutated]).all()
    corrupted, selected = data.corrupt(changed, rng, 0.5, mutated)
    assert not (selected & mutated).any() and (corrupted[mutated] == changed[mutated]).all()


def test_masking_is_esm2s() -> None:
    rng = np.random.default_rng(0)
    tokens = data.frame([rng.choice([*range(4, 24), 30], 200) for _ in range(500)], 204)
    corrupted, selected = data.corrupt(tokens, rng, 0.15)
    residues = (tokens >= 4) & (tokens < 24)
    assert selected[residues].mean() == pytest.approx(0.15, abs=0.005)
    assert not selected[~residues].any()
    assert (corrupted[~selected] == tokens[~selected]).all()
    masked = corrupted[selected] == data.MASK_TOKEN
    kept = corrupted[selected] == tokens[selected]
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / 20, abs=0.01)
    assert corrupted[selected & (corrupted != data.MASK_TOKEN)].max() < 24


def test_families_have_equal_shares_and_the_held_out_tenth_is_never_drawn(folder: Path) -> None:
    corpus = training.corpus_of(folder, _settings(mask_rate=0.2))
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
            clean = tuple(token for token in row if token not in (data.CLS, data.EOS, data.PAD))
            if clean in trained:  # surplus targets stay masked and are not found
                seen[trained[clean]] += 1
            assert clean not in held_out
    assert min(seen.values()) > 0.3 * sum(seen.values())


def test_a_batch_says_of_which_column_each_target_is() -> None:
    """Columns count on from family to family: here the letter of a column is a function of its number."""
    letters = 4 + 7 * np.arange(8 + 5) % 20
    rows = [np.tile(part, (20, 1)) for part in (letters[:8], letters[8:])]
    families = [data.Family(f"F{k}", "S_A", "", row, row) for k, row in enumerate(rows)]
    corpus = data.Corpus(families, 6, 0.3, seed=0)
    assert corpus.num_columns == 13
    for batch in (corpus.batch(0), corpus.batch(1), corpus.held_out()):
        real = batch.targets != data.IGNORED
        assert real.sum() > 5 and ((batch.columns == data.IGNORED) == ~real).all()
        assert (torch.from_numpy(letters)[batch.columns[real]] == batch.targets[real]).all()


def test_rate_before_the_decay_does_not_know_the_end() -> None:
    assert [optimizer.rate_factor(step, 1000, 100) for step in (0, 99, 500)] == [0.01, 1.0, 1.0]
    assert optimizer.rate_factor(950, 1000, 100) == 0.5
    assert optimizer.rate_factor(500, 5000, 100) == 1.0


def test_orthogonalized_singular_values_are_near_one() -> None:
    matrices = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(optimizer.orthogonalize(matrices))
    assert float(values.min()) > 0.5 and float(values.max()) < 1.5


def test_adam_of_the_mixed_optimiser_is_pytorchs() -> None:
    start = torch.randn(7, generator=torch.Generator().manual_seed(0))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    mixed = optimizer.MuonAdam([{"params": [ours], "lr": 0.1}])
    adam = torch.optim.Adam([theirs], lr=0.1, betas=(0.9, 0.98))
    for step in range(5):
        for parameter, method in ((ours, mixed), (theirs, adam)):
            parameter.grad = (parameter * (step + 1)).detach().sin()
            method.step()
    torch.testing.assert_close(ours, theirs)


def test_every_trained_matrix_is_in_one_group(folder: Path) -> None:
    module = training.TinyModule(_settings(), 9, compiled=False)
    matrices, others = (group["params"] for group in optimizer.parameter_groups(module, 1.0, 1.0, 0.0))
    assert all(value.shape in ((16, 16), (64, 16), (16, 64)) for value in matrices) and len(matrices) == 2 * 6 + 1
    trained = {id(value) for name, value in module.named_parameters() if "contact_head" not in name}
    assert sorted(map(id, matrices + others)) == sorted(trained)


def test_contact_features_equal_brute_force_and_esms_head() -> None:
    model = network.new_model(2, 16, 2, seed=0).eval()
    sequence = "LAGVSERTIDPKQ"
    features = contacts.attention_features(model, sequence)
    tokens = contacts.esm_tokens(sequence)[None]
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
    touching = np.triu(rng.random((40, 40)) < 0.1, 6)
    touching |= touching.T
    noise = rng.normal(size=(40, 40, 3)).astype(np.float32)
    noise[..., 1] += 4 * touching
    monkeypatch.setattr(contacts, "attention_features", lambda model, sequence: noise)
    domain = contacts.Domain("F", "S_A", "L" * 40, 0, 40, touching, np.zeros((40, 40)))
    model = network.new_model(1, 8, 2, seed=0)
    weights, bias = contacts.fit_contact_head(model, [domain], seed=0)
    assert weights[1] > 1 and abs(weights[[0, 2]]).max() < 0.5 and bias < 0


def test_precision_is_that_of_the_best_half_length() -> None:
    touching = np.zeros((8, 8), dtype=bool)
    touching[0, 6] = touching[6, 0] = True
    scores = np.zeros((8, 8))
    scores[0, 6] = 3.0
    scores[0, 1] = 9.0  # too near to count
    assert contacts.precision(scores, touching, 8) == 1.0
    assert contacts.precision(scores, touching) == pytest.approx(1 / 3)


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
    for family in data.load_families(folder, []):
        _write_structure(folder / "structures" / f"{family.structure}.pdb", family.query)
    _train(folder, tmp_path / "run", steps=2)
    rows = export.finish(folder, tmp_path / "run", tmp_path / "tiny.safetensors", ["FAM2"])
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
    model = network.new_model(2, 16, 2, seed=0).eval()
    path = tmp_path / "tiny.safetensors"
    export.write_file(model, path, {"seed": 0})
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        assert json.loads(file.metadata()["training"]) == {"seed": 0}
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    other = transformers.EsmForMaskedLM(transformers.EsmConfig(**config)).eval()
    tensors["lm_head.decoder.weight"] = tensors["esm.embeddings.word_embeddings.weight"]
    missing, unexpected = other.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all("inv_freq" in name or "decoder.bias" in name or "position" in name for name in missing)
    tokens = contacts.esm_tokens("LAGVSERTIDPKQ")[None]
    with torch.no_grad():
        model.load_state_dict(export.as_shipped(model.state_dict()))
        torch.testing.assert_close(other(tokens).logits, model(tokens)["logits"], atol=1e-4, rtol=1e-4)
