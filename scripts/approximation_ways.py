"""Ways to a contact map from fewer forwards, side by side on the demo's domains: how rows are chosen and completed.

    python scripts/approximation_ways.py --ids 2O9S_A 2X1B_A --checkpoint tiny.safetensors

The full Jacobian of each domain is computed once and rows are taken out of it, so that k rows a position stand for
19 / k times fewer forwards. Those that were not tried are *zero* like the wild type's, or the *mean* of those that were
(what `substitutions=subset` does), or left out and the L x L norms symmetrised instead of the tensor (*map*).

*m together*: m random positions are substituted in each forward, five times fewer forwards in all, and the rows that
explain all forwards best are solved for, three times over with weights from the coupling strengths found so far. These
forwards are really made. Prints a Markdown table: means over domains and draws of P@L/2 and of the correlation with
the full map, pairs |i - j| >= 6, C-beta < 8 A.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from plmjac.alphabet import AMINO_ACIDS, MASK, NUM_AMINO_ACIDS, encode
from plmjac.datasets import InputError, build
from plmjac.jacobian import among_all, categorical_jacobian, contact_map
from plmjac.metrics import precision_at, ranked_hits
from plmjac.models import LanguageModel, load_model
from plmjac.records import Contacts, Protein

FIXED = ("E", "EY", "EYV", "EYVR", "EYVRM", "PW", "PWGD")
COUNTS = (1, 2, 3, 4, 6)
RIDGE = 0.3
"""Of the solve, as a share of the mean diagonal."""

Choice = Int64[Tensor, "L A"]
Way = Callable[[Float[Tensor, "L A L 20"], Choice, Int64[Tensor, " L"]], Float[Tensor, "L L"]]


def zero_filled(rows: Float[Tensor, "L A L 20"], letters: Choice, tokens: Int64[Tensor, " L"]) -> Float[Tensor, "L L"]:
    """Rows that were not tried are zero."""
    full = rows.new_zeros(len(rows), NUM_AMINO_ACIDS, *rows.shape[2:])
    full[torch.arange(len(rows))[:, None], letters] = rows
    return contact_map(full)


def mean_filled(rows: Float[Tensor, "L A L 20"], letters: Choice, tokens: Int64[Tensor, " L"]) -> Float[Tensor, "L L"]:
    """Rows that were not tried are the mean of those that were."""
    return contact_map(among_all(rows, letters, tokens))


def map_symmetrized(
    rows: Float[Tensor, "L A L 20"], letters: Choice, tokens: Int64[Tensor, " L"]
) -> Float[Tensor, "L L"]:
    """Norms of what there is, symmetrised."""
    return contact_map(rows)


WAYS: dict[str, Way] = {"zero": zero_filled, "mean": mean_filled, "map": map_symmetrized}


def drawn(tokens: Int64[Tensor, " L"], count: int, draw: np.random.Generator) -> Choice:
    """`count` amino acids for each position, the wild type not among them."""
    others = [[letter for letter in range(NUM_AMINO_ACIDS) if letter != token] for token in tokens.tolist()]
    return torch.tensor([draw.permutation(each)[:count].tolist() for each in others])


def designed(
    tokens: Int64[Tensor, " L"], together: int, number: int, draw: np.random.Generator
) -> Float[Tensor, "N L 20"]:
    """Substitutions of each forward: positions in random groups, with the letters of each in random order."""
    length, design = len(tokens), torch.zeros(number, len(tokens), NUM_AMINO_ACIDS, dtype=torch.float64)
    letters = [drawn(tokens[i : i + 1], 19, draw)[0].tolist() for i in range(length)]
    row, turn = 0, [0] * length
    while row < number:
        for group in np.array_split(draw.permutation(length), max(1, length // together)):
            if row == number:
                break
            for i in group.tolist():
                design[row, i, letters[i][turn[i] % 19]] = 1
                turn[i] += 1
            row += 1
    return design


def solved(
    design: Float[Tensor, "N L 20"], changes: Float[Tensor, "N L 20"], rounds: int = 3
) -> Float[Tensor, "L 20 L 20"]:
    """The Jacobian of least weighted norm that explains the changes, up to the ridge."""
    number, length, _ = design.shape
    shared = torch.einsum("nia,mia->inm", design, design)
    target = (changes - changes.mean(dim=-1, keepdim=True)).double()
    weight = torch.ones(length, length, dtype=torch.float64)
    jacobian = torch.zeros(length, NUM_AMINO_ACIDS, length, NUM_AMINO_ACIDS, dtype=torch.float64)
    for _ in range(rounds):
        for j in range(length):
            gram = torch.einsum("i,inm->nm", weight[:, j], shared)
            gram += RIDGE * gram.diagonal().mean() * torch.eye(number, dtype=torch.float64)
            share = torch.linalg.solve(gram, target[:, j])
            jacobian[:, :, j] = weight[:, j, None, None] * torch.einsum("nia,nb->iab", design, share)
        strength = jacobian.square().sum(dim=(1, 3))
        weight = (strength + strength.T) / (strength + strength.T).mean() + 0.01
    return jacobian.float()


def together_map(
    model: LanguageModel, tokens: Int64[Tensor, " L"], together: int, number: int, draw: np.random.Generator
) -> Float[Tensor, "L L"]:
    """The map from `number` forwards of `together` substitutions each."""
    design = designed(tokens, together, number, draw)
    mutants = torch.where(design.sum(dim=2) > 0, design.argmax(dim=2), tokens)
    changes = torch.cat([model.logits(part) for part in torch.split(mutants, 64)]) - model.logits(tokens[None])
    return contact_map(solved(design, changes))


def maps(
    model: LanguageModel, tokens: Int64[Tensor, " L"], draws: int
) -> Iterator[tuple[tuple[str, str], Float[Tensor, "L L"]]]:
    """Every way's map with its name and times fewer forwards; the full one first."""
    length = len(tokens)
    full = categorical_jacobian(model.logits, tokens)
    yield ("all", "1.0"), contact_map(full)
    mask = torch.full((length, 1), MASK)
    yield ("MASK", "19"), contact_map(categorical_jacobian(model.logits, tokens, letters=mask))
    here = torch.arange(length)[:, None]
    for letters in FIXED:
        choice = torch.tensor([AMINO_ACIDS.index(letter) for letter in letters]).expand(length, -1)
        for name, way in WAYS.items():
            yield (f"{letters}, {name}", f"{19 / len(letters):.1f}"), way(full[here, choice], choice, tokens)
    for draw in range(draws):
        for count in COUNTS:
            choice = drawn(tokens, count, np.random.default_rng((draw, count)))
            for name, way in WAYS.items():
                yield (f"{count} drawn, {name}", f"{19 / count:.1f}"), way(full[here, choice], choice, tokens)
        for together in (1, 2, 4, 8):
            number = 19 * length // 5
            found = together_map(model, tokens, together, number, np.random.default_rng((draw, together)))
            yield (f"{together} together, solved", "5.0"), found


def scores(found: Float[np.ndarray, "L L"], full: Float[np.ndarray, "L L"], contacts: Contacts) -> tuple[float, float]:
    """P@L/2 and the correlation with the full map."""
    first, second = np.triu_indices(len(full), 6)
    hits: Bool[np.ndarray, " N"] = ranked_hits(found, contacts, 6, None)
    alike = float(np.corrcoef(found[first, second], full[first, second])[0, 1])
    return precision_at(hits, len(full) // 2), alike


def main() -> None:
    """Compute all ways on all domains and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", nargs="*", help="demo domains; all without it")
    parser.add_argument("--checkpoint", help="weights for model=tiny other than the bundled ones")
    parser.add_argument("--draws", type=int, default=4, help="of each random choice")
    arguments = parser.parse_args()
    model = load_model("tiny", checkpoint=arguments.checkpoint)
    results: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    try:
        proteins = list(build("demo", ids=arguments.ids))
    except InputError as error:
        parser.error(str(error))
    for protein in proteins:
        assert isinstance(protein, Protein) and protein.structure is not None
        contacts, full = protein.structure.contacts("cb", 8.0), None
        for way, found in maps(model, torch.from_numpy(encode(protein.sequence)), arguments.draws):
            scored = found.double().numpy()
            full = scored if full is None else full
            results[way].append(scores(scored, full, contacts))
    print("| rows | times fewer forwards | P@L/2 | Pearson with the full map |\n|---|---|---|---|")
    for (name, fewer), values in results.items():
        precision, alike = np.mean(values, axis=0)
        print(f"| {name} | {fewer} | {precision:.3f} | {alike:.3f} |")


if __name__ == "__main__":
    main()
