"""Checks for a new model, inside the package or outside: `faults(model)` lists everything that is wrong with it.

    from plmjac.models import load_model
    from plmjac.models.conformance import faults
    assert faults(load_model("mine"), reference=the_librarys_own_logits) == []

Runs about forty forwards of up to 60 residues, which takes a while for a large model.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from plmjac.alphabet import MASK, NUM_AMINO_ACIDS, NUM_TOKENS
from plmjac.models.base import READOUTS, LanguageModel
from plmjac.models.counting import Allocated, operations

TOLERANCE = 1e-4
"""Largest difference between float32 logits and those of the library's own forward, relative where these exceed 1."""

LENGTHS = (1, 2, 7, 33)

Reference = Callable[[Tensor], Tensor]
"""Function from our tokens (B, L), 0 to 25 (MASK), to logits (B, L, 20) by the library's own forward."""


def faults(model: LanguageModel, reference: Reference | None = None, *, costs: bool = True) -> list[str]:
    """List everything that is wrong with a model, a sentence each; `reference` is the library's own forward.

    `costs=False` skips the check of operations and bytes, whose formulas are within a tenth for larger models only.
    """
    checks = [_shapes, _letters, _repeats, _batches, _positions, _heads, _too_long, _moves]
    found = [sentence for check in checks for sentence in check(model)]
    if reference is not None:
        found += _parity(model, reference)
    return found + (list(_costs(model)) if costs else [])


def tokens_of(length: int, batch: int = 1, *, letters: int = NUM_AMINO_ACIDS, seed: int = 0) -> Tensor:
    """Random tokens (batch, length) of the first `letters` letters; the global random state is untouched."""
    return torch.randint(letters, (batch, length), generator=torch.Generator().manual_seed(1000 * length + seed))


def _parity(model: LanguageModel, reference: Reference) -> Iterator[str]:
    for length in LENGTHS:
        plain = tokens_of(length, 2)
        masked = plain.clone()
        masked[0, length // 2] = MASK
        masked[1, : length // 2] = MASK
        odd = tokens_of(length, 2, letters=NUM_TOKENS - 1)
        for kind, tokens in (("plain", plain), ("masked", masked), ("odd letters", odd)):
            difference = _difference(model.logits(tokens), reference(tokens))
            if difference > TOLERANCE:
                yield f"logits of {kind} sequences of {length} residues are {difference:.2g} from the reference's"


def _shapes(model: LanguageModel) -> Iterator[str]:
    if model.training or any(parameter.requires_grad for parameter in model.parameters()):
        yield "the model is not in eval mode without gradients"
    if "logits" not in model.readouts or not model.readouts <= set(READOUTS):
        yield f"readouts are {sorted(model.readouts)}: logits is needed, the others are of {READOUTS}"
    for length in LENGTHS:
        tokens = tokens_of(length, 2)
        together = model.read(tokens, model.readouts)
        if set(together) != set(model.readouts):
            yield f"read gave {sorted(together)} for {sorted(model.readouts)}"
        expected = {
            "logits": (2, length, NUM_AMINO_ACIDS),
            "contact_head": (2, length, length),
            "attention": (2, model.size.num_layers, model.size.num_heads, length, length),
        }
        for name, value in together.items():
            if value.dtype != torch.float32 or not bool(value.isfinite().all()):
                yield f"{name} of {length} residues is not finite float32"
            if tuple(value.shape) != expected.get(name, tuple(value.shape)) or value.shape[0] != 2:
                yield f"{name} of {length} residues has shape {tuple(value.shape)}"
            if _difference(model.read(tokens, [name])[name], value) > TOLERANCE:
                yield f"{name} alone differs from {name} read with the others"
            value += 1  # raises for a tensor of inference mode
    for name in (*sorted(set(READOUTS) - model.readouts), "no such readout"):
        if not _refuses(lambda name=name: model.read(tokens_of(4), [name])):  # type: ignore[misc]
            yield f"read does not refuse {name}, which is no readout of the model, with a ValueError"
    if not model.weights_sha256 or not model.name:
        yield "name and weights_sha256 must be set"


def _letters(model: LanguageModel) -> Iterator[str]:
    tokens = torch.arange(NUM_TOKENS)[None]
    if not bool(model.logits(tokens).isfinite().all()):
        yield "logits of a sequence with every letter and MASK are not finite"
    masked = tokens_of(12)
    masked[0, 5] = MASK
    if torch.equal(model.logits(masked), model.logits(tokens_of(12))):
        yield "MASK in the place of a residue changes nothing"
    for wrong in (-1, NUM_TOKENS):
        bad = tokens_of(4)
        bad[0, 2] = wrong
        if not _refuses(lambda bad=bad: model.logits(bad), (ValueError, IndexError, RuntimeError)):  # type: ignore[misc]
            yield f"token {wrong} is not refused"


def _repeats(model: LanguageModel) -> Iterator[str]:
    tokens, state = tokens_of(20, 3), torch.random.get_rng_state()
    before = tokens.clone()
    first = model.logits(tokens)
    if not torch.equal(first, model.logits(tokens)):
        yield "the same sequence twice gives other bits"
    if not torch.equal(torch.random.get_rng_state(), state):
        yield "a forward draws from the global random numbers"
    if not torch.equal(tokens, before):
        yield "a forward changes its tokens"


def _batches(model: LanguageModel) -> Iterator[str]:
    tokens = tokens_of(20, 4)
    tokens[2, 3:9] = MASK
    together = model.read(tokens, model.readouts)
    for name, value in together.items():
        alone = torch.cat([model.read(each[None], [name])[name] for each in tokens])
        if _difference(alone, value) > TOLERANCE:
            yield f"{name} of a sequence depends on the others of its batch"


def _positions(model: LanguageModel) -> Iterator[str]:
    tokens, usual = tokens_of(12), torch.arange(12)
    plain = model.logits(tokens)
    for shift in (0, 5):
        if _difference(model.logits(tokens, usual + shift), plain) > TOLERANCE:
            yield f"residue indices that start at {shift} change the logits"
    gap = usual + 3 * (usual > 5)
    try:
        if torch.equal(model.logits(tokens, gap), plain):
            yield "a gap in the residue indices changes nothing, and is not refused with a ValueError"
    except ValueError:
        pass
    for wrong in (usual.flip(0), torch.arange(11)):
        if not _refuses(lambda wrong=wrong: model.logits(tokens, wrong)):  # type: ignore[misc]
            yield f"residue indices {wrong.tolist()} of 12 residues are not refused with a ValueError"


def _heads(model: LanguageModel) -> Iterator[str]:
    if "attention" not in model.readouts:
        return
    tokens, layers, heads = tokens_of(9), model.size.num_layers, model.size.num_heads
    everything = model.read(tokens, ["attention"])["attention"]
    chosen = [(layers - 1, 0), (0, heads - 1)]
    some = model.read(tokens, ["attention"], None, chosen)["attention"]
    if some.shape != (1, 2, 9, 9) or _difference(some, torch.stack([everything[:, a, b] for a, b in chosen], 1)) > 1e-5:
        yield "attention of two heads is not that of these among all"
    if bool((everything < 0).any()) or bool((everything.sum(-1) > 1 + 1e-4).any()):
        yield "attention is not a share of 1 of each residue"
    if not _refuses(lambda: model.read(tokens, ["attention"], None, [(layers, 0)])):
        yield "a head that is not there is not refused with a ValueError"


def _too_long(model: LanguageModel) -> Iterator[str]:
    if model.size.max_length != model.max_length:
        yield f"the model takes {model.max_length} residues, its size says {model.size.max_length}"
    if model.max_length is not None:
        if not bool(model.logits(tokens_of(model.max_length)).isfinite().all()):
            yield f"logits of the longest sequence, {model.max_length} residues, are not finite"
        if not _refuses(lambda: model.logits(tokens_of((model.max_length or 0) + 1))):
            yield f"a sequence over {model.max_length} residues is not refused with a ValueError"
    if not _refuses(lambda: model.logits(tokens_of(1)[:, :0])):
        yield "a sequence of no residues is not refused with a ValueError"


def _moves(model: LanguageModel) -> Iterator[str]:
    """Moving the model takes all of its tensors along, and a copy on a GPU (if there is one) gives the same logits."""
    moved = copy.deepcopy(model).to("meta")
    left = [name for name, tensor in moved.state_dict(keep_vars=True).items() if tensor.device.type != "meta"]
    left += [name for name, value in vars(moved).items() if isinstance(value, Tensor)]
    if left or moved.device.type != "meta":
        yield f"{left or 'device'} stays behind when the model is moved: make it a buffer"
    if torch.cuda.is_available() and model.device.type == "cpu" and getattr(model, "precision", "fp32") == "fp32":
        tokens = tokens_of(20, 2)
        there = copy.deepcopy(model).to("cuda").logits(tokens.cuda()).cpu()
        if (difference := _difference(there, model.logits(tokens))) > 10 * TOLERANCE:
            yield f"logits on the GPU are {difference:.2g} from those on the CPU"


def _costs(model: LanguageModel) -> Iterator[str]:
    size, (batch, length) = model.size, (4, 60)
    tokens = tokens_of(length, batch)
    model.logits(tokens)  # allocates what is made once and kept
    counted = operations(lambda: model.logits(tokens[:1]))
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(model)}
    with Allocated() as allocated:
        model.logits(tokens)
    for what, said, found in (
        ("operations of a forward", size.flops(length), counted),
        ("bytes of a forward", size.of_logits(batch, length), allocated.most),
        ("bytes of the weights", size.weights, sum(held.values())),
    ):
        if abs(said - found) > 0.1 * max(found, 1):
            yield f"{what}: {said} said, {found} counted"


def _tensors(model: LanguageModel) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative where values exceed 1; infinite for different shapes."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / max(1.0, float(other.abs().max())))


def _refuses(call: Callable[[], object], errors: tuple[type[Exception], ...] = (ValueError, TypeError)) -> bool:
    try:
        call()
    except errors:
        return True
    except Exception:
        return False
    return False
