"""scripts/train_tiny.py at toy size: one seed gives one loss curve, resumed or not; lessons are what they claim."""

import csv
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gemmi
import lightning as pl
import numpy as np
import pytest
import torch
from esm.modules import ContactPredictionHead
from safetensors import safe_open

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from tiny import contacts, data, export, front, network, optimizer, recipe, teacher, training  # noqa: E402

from plmjac.coevolution import read_alignment  # noqa: E402

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
        "families": [], "layers": 4, "width": 16, "heads": 2, "steps": 8, "decay_steps": 2, "per_family": 2,
        "mutants": 2, "mutations": 2, "masked": 3, "tokens": 40, "flanked": 0.5,
        "lr": 0.02, "adam_lr": 3e-3, "weight_decay": 0.05, "weights": [1.0, 1.0, 4.0, 0.5, 1.0],
        "held_layers": 0, "seed": 1,
    }  # fmt: skip
    return training.Settings(**{**values, **changes})  # type: ignore[arg-type]


def _curve(out: Path) -> list[list[float]]:
    with (out / "loss.csv").open(encoding="utf-8") as file:
        return [[float(cell) for cell in row] for row in list(csv.reader(file))[1:]]


def _train(folder: Path, out: Path, **changes: object) -> list[list[float]]:
    training.train(folder, out, _settings(**changes), every=2)
    return _curve(out)


def _taught(folder: Path, out: Path, **changes: object) -> tuple[data.Corpus, teacher.Teacher]:
    corpus = training.corpus_of(folder, _settings(**changes))
    return corpus, teacher.Teacher(corpus.families, out / "teacher", heads=2)


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
        file.write("6" + ",9.9" * 7 + "\r\n")
    assert _train(folder, tmp_path / "b") == whole
    ends = [training.load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in "ab"]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_other_settings_are_refused_but_more_steps_are_not(folder: Path, tmp_path: Path) -> None:
    _train(folder, tmp_path / "a", steps=2, decay_steps=0)
    with pytest.raises(SystemExit, match="other lr"):
        _train(folder, tmp_path / "a", lr=0.1)
    longer = _train(folder, tmp_path / "a", steps=8)
    assert longer == _train(folder, tmp_path / "b", steps=8)


def test_every_part_of_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    """On families of 40 random sequences there is little to learn but by heart; the change comes last: left out."""
    settings = _settings(steps=60, decay_steps=20, flanked=0.0, width=32, per_family=4)
    training.train(folder, tmp_path, settings, every=20)
    first, *_, last = _curve(tmp_path)
    for name in ("masked", "divergence", "column", "attention"):
        place = 1 + network.Losses._fields.index(name)
        assert last[place] < 0.98 * first[place], name


def test_fast_forward_equals_fair_esm() -> None:
    """With padding, masks and any length; logits to 1e-4, and the gradient of the loss as well."""
    model = network.new_model(3, 32, 4, seed=0)
    rng = np.random.default_rng(0)
    for lengths in ([1], [2, 9, 30], [70, 70]):
        tokens = np.full((len(lengths), max(lengths) + 2), data.PAD)
        for row, length in zip(tokens, lengths, strict=True):
            letters = np.where(rng.random(length) < 0.3, data.MASK_TOKEN, rng.integers(4, 24, length))
            row[: length + 2] = [data.CLS, *letters, data.EOS]
        batch = torch.from_numpy(tokens)
        real = batch != data.PAD
        torch.testing.assert_close(
            network.fast_logits(model, batch)[real], model(batch)["logits"][real][:, 4:24], atol=1e-4, rtol=1e-4
        )
    residue = torch.where(batch == data.MASK_TOKEN, torch.arange(72) % 20, -1)
    loss = network.masked_loss(model, batch, residue)
    where = residue >= 0
    slow = torch.nn.functional.cross_entropy(model(batch)["logits"][where][:, 4:24], residue[where])
    torch.testing.assert_close(loss, slow, atol=1e-5, rtol=1e-5)
    gradient = torch.autograd.grad(loss, model.layers[0].fc1.weight)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(slow, model.layers[0].fc1.weight)[0], atol=1e-5, rtol=1e-3)


def test_first_layers_start_out_looking_at_neighbours() -> None:
    """The mean attention of each head over random sequences is greatest at its offset; far ones a little beside."""
    model = network.new_model(3, 160, 8, seed=0)
    tokens = torch.randint(4, 24, (30, 62), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        attention = model(tokens, need_head_weights=True)["attentions"].mean(dim=0)
    for layer, offsets, beside in ((0, network.NEAR, 0), (1, network.FAR, 3)):
        for head in range(8):
            offset = offsets[head // 2] * (-1) ** head
            looked = attention[layer, head, 30].argmax() - 30
            assert abs(int(looked) - offset) <= beside, (layer, head)


def test_a_run_starts_from_the_weights_of_another(folder: Path, tmp_path: Path) -> None:
    _train(folder, tmp_path / "a", steps=4)
    start = tmp_path / "a" / "last.ckpt"
    training.train(folder, tmp_path / "b", _settings(steps=1, lr=1e-12, adam_lr=1e-12), start_from=start)
    first, second = (training.load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in "ab")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=1e-6, rtol=0)


def test_held_layers_stay(folder: Path, tmp_path: Path) -> None:
    """The last two of four layers, the embedding and the output stay, the others move; then all of them move."""
    before = network.new_model(4, 16, 2, seed=1).state_dict()
    for steps, held, stays in ((2, 2, ("layers.2", "layers.3", "emb", "lm_head")), (4, 0, ())):
        _train(folder, tmp_path / "a", steps=steps, held_layers=held, decay_steps=0)
        state = training.load_checkpoint(tmp_path / "a" / "last.ckpt")["state_dict"]
        for name, value in before.items():
            if not name.endswith("inv_freq") and not name.startswith("contact_head"):
                assert torch.equal(state[f"model.{name}"], value) == name.startswith(stays or "-"), name


def test_sequences_without_their_flanks(folder: Path) -> None:
    batch = training.corpus_of(folder, _settings(flanked=1.0, tokens=60, masked=30)).batch(3)
    tokens, own = batch.tokens[: len(batch.residue)], batch.residue >= 0
    plain, place = front.without_flanks(tokens, own)
    for row in range(len(tokens)):
        letters = tokens[row, own[row]].tolist()
        assert [token for token in plain[row].tolist() if token != data.PAD] == [data.CLS, *letters, data.EOS]
        for at in range(tokens.shape[1]):
            if own[row, at] or tokens[row, at] in (data.CLS, data.EOS):
                assert plain[row, place[row, at]] == tokens[row, at]
            else:
                assert place[row, at] == -1
    assert 0 < (~batch.whole).sum() < 20


def test_a_new_front_hands_over_what_the_old_one_does(folder: Path, tmp_path: Path) -> None:
    """It comes nearer to the old front; the last layers are the old ones, and another run can start from it."""
    _train(folder, tmp_path / "alone", steps=2, flanked=0.0)
    alone = tmp_path / "alone" / "last.ckpt"
    settings = _settings(layers=5, steps=80, decay_steps=20, flanked=1.0, per_family=4, lr=0.01)
    training.train(folder, tmp_path / "front", settings, every=20, module_of=partial(front.FrontModule, alone=alone))
    first, *_, last = _curve(tmp_path / "front")
    assert last[1] < first[1] and last[2] < 0.9 * first[2]
    state, old = (training.load_checkpoint(path)["state_dict"] for path in (tmp_path / "front" / "last.ckpt", alone))
    for name, value in old.items():
        if name.startswith(("model.layers.2", "model.layers.3")):
            number = int(name.split(".")[2])
            assert torch.equal(state[name.replace(f"layers.{number}", f"layers.{number + 1}")], value), name
    start = tmp_path / "front" / "last.ckpt"
    training.train(folder, tmp_path / "next", _settings(layers=5, steps=2), start_from=start)
    wanted = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    taught = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    assert float(front.unlikeness(wanted, wanted + 0.0, taught)) == 0.0
    mean = wanted[taught].mean(dim=0).expand(3, 5, 4)
    assert float(front.unlikeness(mean, wanted, taught)) == pytest.approx(1.0)


def _recipe(folder: Path, out: Path, families: tuple[str, ...] = ("FAM1", "FAM2"), **changes: Any) -> None:
    """All stages of the real one at toy size, into `out`."""
    small = {"width": 16, "heads": 2, "decay_steps": 1, **changes}
    stages = tuple(
        stage._replace(settings=replace(stage.settings, steps=steps, **small))
        for stage, steps in zip(recipe.STAGES, (2, 4, 4, 2, 4, 8), strict=True)
    )
    recipe.follow(folder, out, out / "export" / "tiny.safetensors", families, stages, every=2)


def test_the_recipe_killed_in_any_run_gives_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies in each of its runs, with steps done since the last checkpoint but once, and is given again."""
    _write_structures(folder)
    _recipe(folder, tmp_path / "a")
    original, deaths = training.Journal.on_train_batch_end, [("alone", 3), ("front", 3), ("tiny", 2), ("tiny", 7)]

    def dies(self: training.Journal, trainer: pl.Trainer, *rest: Any) -> None:
        original(self, trainer, *rest)
        if deaths and (self.out.name, trainer.global_step) == deaths[0]:
            deaths.pop(0)
            raise KeyboardInterrupt

    def state(name: str, run: str) -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = training.load_checkpoint(tmp_path / name / run / "last.ckpt")["state_dict"]
        return weights

    monkeypatch.setattr(training.Journal, "on_train_batch_end", dies)
    for left in (3, 2, 1, 0):
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            _recipe(folder, tmp_path / "b")
        assert len(deaths) == left
        if left == 1:  # of the front and the stage that holds the last layers: these are still those of the first run
            alone, held = state("b", "alone"), state("b", "tiny")
            for part in ("self_attn.q_proj.weight", "fc2.bias"):
                assert torch.equal(held[f"model.layers.4.{part}"], alone[f"model.layers.3.{part}"])
    _recipe(folder, tmp_path / "b")
    for run in ("alone", "front", "tiny"):
        whole, again = state("a", run), state("b", run)
        assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert not torch.equal(state("b", "tiny")["model.layers.4.fc2.bias"], alone["model.layers.3.fc2.bias"])
    with safe_open(tmp_path / "b" / "export" / "tiny.safetensors", "pt") as file:
        facts = json.loads(file.metadata()["training"])
    assert facts["steps_done"] == 8 and facts["weights"][2] == 45 and facts["families"] == ["FAM1", "FAM2"]


def test_the_recipe_refuses_before_any_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no .*SFAM1_A\.pdb"):
        _recipe(folder, tmp_path / "a")
    _write_structures(folder)
    with pytest.raises(SystemExit, match=r"no family FAM9 in .*queries\.fasta"):
        _recipe(folder, tmp_path / "a", ("FAM1", "FAM9"))
    with pytest.raises(SystemExit, match=r"there is no .*none/queries\.fasta; the folder needs"):
        _recipe(folder / "none", tmp_path / "a")
    assert not (tmp_path / "a" / "alone").exists()
    with pytest.raises(SystemExit, match=r"FAM2 has 18 residues, too many for 19 tokens"):
        _recipe(folder, tmp_path / "b", tokens=19)
    with pytest.raises(SystemExit, match="4 layers or more"):
        _recipe(folder, tmp_path / "b", layers=3)
    _train(folder, tmp_path / "a" / "tiny", steps=2)
    with pytest.raises(SystemExit, match=r"a/tiny was not taught FAM9"):
        export.finish(folder, tmp_path / "a" / "tiny", tmp_path / "tiny.safetensors", ["FAM9"])
    with pytest.raises(SystemExit, match=r"tiny/last\.ckpt did not start from .*front/last\.ckpt"):
        _recipe(folder, tmp_path / "a")
    assert not (tmp_path / "a" / "alone").exists()


def test_losses_equal_sums_over_places(folder: Path, tmp_path: Path) -> None:
    """Every part against fair-esm's own forward and loops over rows, places, heads and amino acids."""
    corpus, taught = _taught(folder, tmp_path, tokens=30, flanked=1.0)
    batch = corpus.batch(5)
    assert batch.tokens.shape[1] == 30
    lesson = taught.lesson(batch, corpus.num_wild_types)
    model, head = network.new_model(4, 16, 2, seed=0), network.ColumnHead(16, corpus.num_columns)
    losses = network.training_losses(model, head, batch, lesson, corpus.first_columns, network.rotary_tables(30, 8))
    with torch.no_grad():
        whole = model(batch.tokens, repr_layers=[2], need_head_weights=True)
    logits = whole["logits"][..., 4:24].double()
    masked, divergence, change, to_change, column = [], [], [], [], []
    attention = []
    drawn, wild_types = len(batch.family), corpus.num_wild_types
    for row in range(len(batch.tokens)):
        for place in range(30):
            token = int(batch.tokens[row, place])
            if row >= drawn:
                if lesson.moved[row - drawn, place]:
                    difference = logits[row, place] - logits[(row - drawn) // 2, place]
                    wanted = lesson.change[row - drawn, place]
                    change.append(float((difference - difference.mean() - wanted).square().sum()))
                    to_change.append(float(wanted.square().sum()))
                continue
            here = int(batch.column[row, place])
            if token == data.MASK_TOKEN and batch.residue[row, place] >= 0:
                masked.append(-float(logits[row, place].log_softmax(0)[batch.residue[row, place]]))
            flank = batch.residue[row, place] < 0 and int(token) not in (data.CLS, data.EOS, data.PAD)
            assert bool(batch.flank[row, place]) == flank
            if here >= 0 or flank:
                number = corpus.num_columns if flank else int(corpus.first_columns[batch.family[row]]) + here
                named = head(whole["representations"][2][row, place]).detach().log_softmax(0)
                column.append(-float(named[number]))
            if row < wild_types and lesson.taught[row, place]:
                allowed = [b for b in range(20) if token - 4 != b]
                ours = logits[row, place, allowed].log_softmax(0)
                theirs = lesson.expected[row, place, allowed].double().log_softmax(0)
                divergence.append(float((theirs.exp() * (theirs - ours)).sum()))
            for k in range(2) if row < wild_types and lesson.taught[row, place] else ():
                for h in range(2):
                    wanted = torch.zeros(30, dtype=torch.float64)
                    wanted[0] = 1.0
                    wanted[lesson.look[k, row, h, place]] += lesson.strength[k, row, h, place]
                    wanted[0] -= lesson.strength[k, row, h, place]
                    given = whole["attentions"][row, 2 + k, h, place].double()
                    attention.append(float((wanted * (wanted / given).log())[wanted > 0].sum()))
    means = [np.mean(part) for part in (masked, divergence, change, column, attention, to_change)]
    expected = torch.tensor(means)
    torch.testing.assert_close(torch.stack(losses).detach().double(), expected.double(), atol=1e-4, rtol=1e-3)


def test_a_lesson_is_that_of_the_field(folder: Path, tmp_path: Path) -> None:
    """Fields and couplings summed residue by residue, for wild types and mutants, and the places of the partners."""
    checked = 0
    for step, flanked in ((0, 0.0), (1, 1.0)):
        corpus, taught = _taught(folder, tmp_path, flanked=flanked)
        batch = corpus.batch(step)
        lesson = taught.lesson(batch, corpus.num_wild_types)

        def conditional(
            row: int, wild_type: int, place: int, batch: data.Batch = batch, taught: teacher.Teacher = taught
        ) -> torch.Tensor:
            known, column = taught.couplings[int(batch.family[wild_type])], batch.column[wild_type].tolist()
            logits = known.fields[column[place]].double().clone()
            for j in range(len(known.fields)):
                state = 20
                if j in column:
                    shown = int(batch.tokens[row, column.index(j)]) - 4
                    state = shown if 0 <= shown < 20 else int(batch.residue[wild_type, column.index(j)])
                logits += known.pairs[j, state, column[place]].double()
            return logits[:20]

        for row in range(corpus.num_wild_types):
            known = taught.couplings[int(batch.family[row])]
            assert torch.equal(lesson.taught[row], batch.column[row] >= 0)
            for place in torch.nonzero(lesson.taught[row])[:, 0].tolist():
                torch.testing.assert_close(
                    lesson.expected[row, place].double(), conditional(row, row, place), atol=1e-5, rtol=1e-4
                )
                for k, h in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    partner = int(known.partners[k, batch.column[row, place], h])
                    there = torch.nonzero(batch.column[row] == partner)[:, 0].tolist() if partner >= 0 else []
                    weight = float(known.strengths[k, batch.column[row, place], h]) if there else 0.0
                    assert float(lesson.strength[k, row, h, place]) == weight
                    assert not there or int(lesson.look[k, row, h, place]) == there[0]
            for mutant in range(2):
                at = len(batch.family) + 2 * row + mutant
                changed = torch.nonzero(batch.tokens[at] != batch.tokens[row])[:, 0]
                assert len(changed) <= 2
                for place in torch.nonzero(lesson.moved[2 * row + mutant])[:, 0].tolist():
                    assert place not in changed and batch.tokens[row, place] != data.MASK_TOKEN
                    difference = conditional(at, row, place) - conditional(row, row, place)
                    got = lesson.change[2 * row + mutant, place].double()
                    torch.testing.assert_close(got, difference - difference.mean(), atol=1e-5, rtol=1e-4)
                    checked += 1
    assert checked > 100


def test_what_stands_out_keeps_the_mean_and_the_best_pairs() -> None:
    """Conditionals keep their mean over the sequences; a strong pair stays, and pairs below the background go."""
    generator = torch.Generator().manual_seed(0)
    pairs = 0.1 * torch.randn(9, 21, 9, 21, generator=generator)
    pairs[1, :, 7, :] += 2 * torch.randn(21, 21, generator=generator)
    pairs = pairs + pairs.permute(2, 3, 0, 1)
    pairs[torch.arange(9), :, torch.arange(9)] = 0
    fields, states = torch.randn(9, 21, generator=generator), torch.randint(21, (50, 9), generator=generator)
    new_fields, new_pairs = teacher.stand_out(fields, pairs, states)

    def mean(fields: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        fed = [fields + sum(pairs[j, row[j]] for j in range(9)) for row in states]
        return torch.stack(fed).mean(dim=0)

    torch.testing.assert_close(mean(new_fields, new_pairs), mean(fields, pairs), atol=1e-4, rtol=1e-4)
    before, after = teacher.coupling_norms(pairs), teacher.coupling_norms(new_pairs)
    background = before.sum(0) * before.sum(1)[:, None] / before.sum()
    torch.testing.assert_close(
        after, torch.minimum(1.5 * (before - background).clamp(min=0), before), atol=1e-4, rtol=0
    )
    assert after[1, 7] > 0.9 * before[1, 7] and (after == 0).sum() > 30


def test_partners_are_the_strongest_in_ascending_order() -> None:
    """And their shares of attention are their couplings over 5, the median of the columns' strongest; 1 at most."""
    pairs = torch.zeros(10, 21, 10, 21)
    couplings = ((0, 9, 3.0), (0, 7, 2.0), (0, 6, 1.0), (0, 2, 5.0), (0, 1, 0.5), (3, 4, 8.0), (5, 8, 8.0))
    for i, j, value in couplings:
        pairs[i, 0, j, 0] = pairs[j, 0, i, 0] = value
    found, strength = teacher.partners(pairs, heads=2)
    assert found[0, 0].tolist() == [7, 9] and found[1, 0].tolist() == [2, 6]
    assert found[0, 9].tolist() == [0, -1] and found[1, 9].tolist() == [-1, -1]
    assert found[1, 2].tolist() == [0, -1] and found[0, 2].tolist() == [-1, -1]
    assert strength[:, 0].flatten().tolist() == pytest.approx([2 / 5, 3 / 5, 5 / 5, 1 / 5])
    assert strength[:, 9].flatten().tolist() == pytest.approx([3 / 5, 0, 0, 0])
    assert strength[1, 3].tolist() == [1, 0] and found[1, 3].tolist() == [4, -1]


def test_a_field_of_other_sequences_is_not_taken(folder: Path, tmp_path: Path) -> None:
    (family,) = data.load_families(folder, ["FAM1"])
    other = replace(family, train=family.train[::-1, ::-1].copy())
    first = teacher.Teacher([family], tmp_path, 2).couplings[0].pairs
    assert torch.equal(teacher.Teacher([family], tmp_path, 2).couplings[0].pairs, first)
    assert not torch.equal(teacher.Teacher([other], tmp_path, 2).couplings[0].pairs, first)


def test_held_out_sequences_teach_nothing(folder: Path, tmp_path: Path) -> None:
    (family,) = data.load_families(folder, ["FAM1"])
    first = teacher.Teacher([family], tmp_path / "a", 2).couplings[0]
    second = teacher.Teacher([replace(family, held_out=family.held_out * 0)], tmp_path / "b", 2).couplings[0]
    assert torch.equal(first.fields, second.fields) and torch.equal(first.pairs, second.pairs)


def test_rows_are_sequences_of_their_family_with_flanks_and_masks(folder: Path) -> None:
    """Each row without its flanks and masks is a piece of one training row without gaps; none of a held-out one."""
    corpora = [training.corpus_of(folder, _settings(tokens=60, flanked=share)) for share in (0.0, 1.0)]
    corpus = corpora[0]
    trained = [["".join(LETTERS[a] for a in row if a < 20) for row in family.train] for family in corpus.families]
    held_out = {"".join(LETTERS[a] for a in row if a < 20) for family in corpus.families for row in family.held_out}
    flanks, shares, cut = [], {True: [], False: []}, 0
    for step in range(60):
        batch = corpora[step % 2].batch(step)
        assert batch.family.tolist()[:4] == [0, 0, 1, 1] and len(batch.tokens) == 7 + 8
        for row, family in enumerate(batch.family.tolist()):
            inside = batch.residue[row] >= 0
            word = "".join(LETTERS[a] for a in batch.residue[row][inside])
            assert any(word in whole for whole in trained[family]) and word not in held_out
            cut += word not in trained[family]
            tokens = batch.tokens[row]
            end = int((tokens == data.EOS).nonzero()[0])
            assert tokens[0] == data.CLS and (tokens[end + 1 :] == data.PAD).all()
            masked = tokens == data.MASK_TOKEN
            assert torch.equal(tokens[inside & ~masked] - 4, batch.residue[row][inside & ~masked])
            flanks.append(end - 1 - len(word))
            assert flanks[-1] == 0 or step % 2 == 1
            shares[row < 4].append(float(masked.sum()) / (end - 1))
    assert max(flanks) > 20 and 0 < cut < 60
    assert max(shares[True]) < 0.4 and np.mean(shares[True]) < 0.06 and 0.3 < np.mean(shares[False]) < 0.8


def test_flanks_are_of_families_that_are_not_taught(folder: Path) -> None:
    """And some of noise, some tags; a third of the sequences has none where the share says so."""
    corpus = training.corpus_of(folder, _settings(families=["FAM1"], tokens=80, flanked=2 / 3, per_family=30))
    strangers = ["".join(LETTERS[a] for a in row) for row in corpus.strangers]
    aligned = read_alignment(folder / "alignments" / "FAM2.fasta")
    assert strangers == ["".join(LETTERS[a] for a in row if a < 20) for row in aligned]
    found, bare, tagged = 0, 0, 0
    for step in range(10):
        batch = corpus.batch(step)
        for row in range(30):
            own = torch.nonzero(batch.residue[row] >= 0)[:, 0]
            letters = "".join(LETTERS[a - 4] if 4 <= a < 24 else "-" for a in batch.tokens[row].tolist())
            before, after = letters[1 : int(own[0])], letters[int(own[-1]) + 1 :].rstrip("-")
            assert len(before) + len(after) + len(own) <= 78
            bare += not before and not after
            tagged += any(tag in before + after for tag in data.TAGS if len(tag) > 3)
            found += any(len(flank) > 5 and flank in stranger for flank in (before, after) for stranger in strangers)
    assert 0.3 < bare / 300 < 0.45 and 0.05 < tagged / 300 < 0.25 and found / 300 > 0.2


def test_columns_are_those_of_the_query() -> None:
    """The letter of a column of the alignment is a function of its number; the query has no residue in column 3."""
    letters = (7 * np.arange(9) % 20).astype(np.int8)
    rows = np.tile(letters, (20, 1))
    rows[np.random.default_rng(0).random(rows.shape) < 0.2] = 20
    columns = np.array([0, 1, 2, 4, 5, 6, 7, 8])
    families = [data.Family("F", "S_A", "", columns, rows, rows)]
    batch = data.Corpus(families, [], 4, 1, 1, 2, tokens=30, flanked=1.0, seed=0).batch(0)
    inside = batch.column >= 0
    assert inside.sum() > 20 and ((batch.residue >= 0).sum() - inside.sum()) in range(1, 7)
    assert torch.equal(batch.residue[inside], torch.from_numpy(letters[columns].astype(np.int64))[batch.column[inside]])


def test_mutants_differ_in_columns_of_the_family_only(folder: Path) -> None:
    corpus = training.corpus_of(folder, _settings(mutations=3, tokens=60, flanked=1.0))
    numbers = []
    for step in range(40):
        batch = corpus.batch(step)
        for k, mutant in enumerate(batch.tokens[7:]):
            changed = mutant != batch.tokens[k // 2]
            assert (batch.column[k // 2][changed] >= 0).all()
            assert ((mutant[changed] >= 4) & (mutant[changed] < 24)).all()
            assert (batch.tokens[k // 2][changed] != data.MASK_TOKEN).all()
            numbers.append(int(changed.sum()))
    assert max(numbers) == 3 and np.mean(numbers) == pytest.approx(3 * 19 / 20, abs=0.1)


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
    module = training.TinyModule(_settings(), training.corpus_of(folder, _settings()))
    matrices, others = (group["params"] for group in optimizer.parameter_groups(module, 1.0, 1.0, 0.0))
    assert all(value.shape in ((16, 16), (64, 16), (16, 64)) for value in matrices) and len(matrices) == 4 * 6 + 1
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


def _write_structures(folder: Path) -> None:
    (folder / "structures").mkdir()
    for family in data.load_families(folder, []):
        _write_structure(folder / "structures" / f"{family.structure}.pdb", family.query)


def test_finish_writes_the_file_and_a_table_of_all_families(folder: Path, tmp_path: Path) -> None:
    _write_structures(folder)
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
        assert file.get_tensor("esm.contact_head.regression.weight").shape == (1, 8)


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
