"""The fast path against fair-esm's own module: same weights, same protocol, same numbers."""

import copy
from typing import Any

import esm.multihead_attention
import pytest
import torch

from plmjac import contact_map
from plmjac.alphabet import MASK, NUM_AMINO_ACIDS, encode
from plmjac.jacobian import categorical_jacobian, mutants
from plmjac.models import Architecture, load_model
from plmjac.models.base import kernels
from plmjac.models.debug import debug_model, random_tensors
from plmjac.models.esm2 import Esm2, Esm2Adapter
from plmjac.models.esm2_compiled import Esm2Compiled
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.models.layouts import rotary_frequencies

SIZES = [Architecture(2, 32, 4), Architecture(6, 320, 20), Architecture(3, 24, 1)]
LENGTHS = [(size, length) for size in SIZES for length in (1, 2, 3, 31, 64) if size.width < 100 or length in (3, 31)]


def gentle(size: Architecture) -> dict[str, torch.Tensor]:
    """Random weights under which logits spread over a few units, as a trained ESM-2's do, at any width."""
    tensors = random_tensors(size, 1)
    tensors["embed_tokens.weight"] *= (32 / max(32, size.width)) ** 0.5
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and size.width > 100 and name.startswith("layers"):
            tensor *= 0.5
    return tensors


def both(size: Architecture, **options: Any) -> tuple[Esm2Adapter, Esm2Adapter]:
    given: dict[str, Any] = {
        "name": "x", "architecture": size, "tensors": gentle(size), "weights_sha256": "", **options
    }  # fmt: skip
    return Esm2(**given), Esm2Fast(**given)


def random_tokens(batch: int, length: int, masks: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(25, (batch, length), generator=generator)
    if masks == "one each":
        tokens[torch.arange(batch), torch.randint(length, (batch,), generator=generator)] = MASK
    if masks == "some":  # a different number in each sequence
        tokens[torch.rand(batch, length, generator=generator) < torch.linspace(0, 0.9, batch)[:, None]] = MASK
    if masks == "all":
        tokens[:] = MASK
    return tokens


def exact_logits(plain: Esm2Adapter, tokens: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """fair-esm's module with the same weights in float64 throughout (its softmax is in float32 otherwise)."""
    module = copy.deepcopy(plain.esm).double()
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(
            esm.multihead_attention, "utils_softmax", lambda x, dim, onnx_trace=False: torch.softmax(x, dim=dim)
        )
        columns = plain._esm_ids[:NUM_AMINO_ACIDS]
        logits: torch.Tensor = module(plain._to_esm(tokens))["logits"][:, 1:-1, columns]
    return logits


@pytest.mark.parametrize("masks", ["none", "one each", "some", "all"])
@pytest.mark.parametrize(("size", "length"), LENGTHS, ids=str)
def test_fast_equals_plain(size: Architecture, masks: str, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fast = both(size)
    tokens = random_tokens(4, length, masks)
    readouts = ["logits", "contact_head", "attention", "representation"]
    expected, found = plain.read(tokens, readouts), fast.read(tokens, readouts)
    # fair-esm's own rounding reaches 1.5e-4 here, so that it is given what it is off by itself.
    exact = exact_logits(plain, tokens, monkeypatch)
    allowed = 1e-4 + float((expected["logits"] - exact).abs().max())
    for name in readouts:
        torch.testing.assert_close(found[name], expected[name], atol=allowed, rtol=0)
    for logits in (fast.logits(tokens), found["logits"]):
        torch.testing.assert_close(logits.double(), exact, atol=1e-4, rtol=0)
    if length > 2 and masks == "none":
        assert expected["logits"].std() > 0.5 and expected["contact_head"].std() > 0.005


def untrained(size: Architecture) -> dict[str, torch.Tensor]:
    """Weights as transformers draws them for a new model: couplings near float32 rounding."""
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(tensor.shape, generator=generator) * 0.02
        if tensor.ndim == 2
        else torch.full_like(tensor, float("norm" in name and "weight" in name))
        for name, tensor in random_tensors(size, 1).items()
    }


def double_map(logits: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The contact map of these logits, all else in float64."""
    length = len(tokens)
    every = mutants(tokens, torch.arange(length).repeat_interleave(20), torch.arange(20).repeat(length))
    change = logits(every).double() - logits(tokens[None]).double()
    return contact_map(change.view(length, 20, length, 20))


@pytest.mark.parametrize(
    ("weights", "size", "length", "limit"),
    [
        (gentle, SIZES[0], 20, 2e-5),
        (gentle, SIZES[2], 20, 2e-5),
        (gentle, SIZES[1], 8, 2e-5),
        (untrained, SIZES[1], 8, 2e-4),
    ],
)
def test_fast_rounds_no_worse_than_plain(
    weights: Any, size: Architecture, length: int, limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, as docs/benchmarks.md says under "Rounding".

    Measured: root mean square errors 0.7 to 1.7 times those of the plain path, and 1.35 at most in these four; largest
    errors 1.3e-5 of the map's largest entry on weights like trained ones, 6e-5 on untrained ones.
    """
    plain, fast = both(size, tensors=weights(size))
    tokens = random_tokens(1, length, "none")[0]
    exact = double_map(lambda batch: exact_logits(plain, batch, monkeypatch), tokens)
    of_fast, of_plain = (double_map(model.logits, tokens) - exact for model in (fast, plain))
    assert of_fast.square().mean().sqrt() <= 2 * of_plain.square().mean().sqrt()
    assert of_fast.abs().max() <= limit * exact.abs().max()


def test_half_precision_keeps_the_map() -> None:
    options: dict[str, Any] = {"name": "x", "architecture": SIZES[0], "tensors": gentle(SIZES[0]), "weights_sha256": ""}
    tokens = random_tokens(1, 30, "none")[0] % 20
    maps = [
        contact_map(categorical_jacobian(Esm2Fast(precision=precision, **options).logits, tokens))
        for precision in ("fp32", "fp16")
    ]
    upper = torch.triu_indices(30, 30, 6)
    full, half = (each[upper[0], upper[1]] for each in maps)
    assert torch.corrcoef(torch.stack([full, half]))[0, 1] >= 0.9999 and not torch.equal(full, half)
    best = [set(each.argsort(descending=True)[:15].tolist()) for each in (full, half)]
    assert len(best[0] & best[1]) >= 14


def test_the_bundled_model_keeps_its_map_in_half_precision() -> None:
    tokens = torch.from_numpy(encode("MQIFVKTLTGKTITLEVEPSDT"))
    maps = [
        contact_map(categorical_jacobian(load_model("tiny", precision=precision).logits, tokens)).reshape(-1)
        for precision in ("fp32", "fp16")
    ]
    assert torch.corrcoef(torch.stack(maps))[0, 1] >= 0.9999


@pytest.mark.parametrize("options", [{"token_dropout": False}, {"bos_eos": "mask"}])
def test_the_variants_are_the_same_too(options: dict[str, Any]) -> None:
    plain, fast = both(SIZES[0], **options)
    for masks in ("none", "one each", "some"):
        tokens = random_tokens(3, 20, masks)
        torch.testing.assert_close(fast.logits(tokens), plain.logits(tokens), atol=1e-4, rtol=0)


def test_files_frequencies_are_used_and_must_agree() -> None:
    size = SIZES[0]
    tensors = random_tensors(size, 1)
    rounded = rotary_frequencies(size).half().float()  # as in the published files
    for layer in range(2):
        tensors[f"layers.{layer}.self_attn.rot_emb.inv_freq"] = rounded
    plain, fast = both(size, tensors=tensors)
    tokens = random_tokens(2, 60, "none")
    torch.testing.assert_close(fast.logits(tokens), plain.logits(tokens), atol=1e-4, rtol=0)
    tensors["layers.1.self_attn.rot_emb.inv_freq"] = rotary_frequencies(size)
    with pytest.raises(ValueError, match="fast=false"):
        both(size, tensors=tensors)


def test_results_do_not_depend_on_the_batch() -> None:
    model = load_model("debug", fast=True)
    tokens = random_tokens(50, 25, "none")  # more than go through a layer together on a CPU
    whole = model.logits(tokens)
    for size in (1, 19):
        parts = torch.cat([model.logits(part) for part in tokens.split(size)])
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_it_is_chosen_by_a_switch_and_has_the_same_weights() -> None:
    assert isinstance(load_model("debug"), Esm2Fast)
    assert isinstance(load_model("debug", fast=False), Esm2)
    assert load_model("debug", fast=False).weights_sha256 == load_model("debug").weights_sha256


def test_no_attention_map_is_formed_for_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = debug_model(adapter=Esm2Fast)
    monkeypatch.setattr(torch, "softmax", lambda *_, **__: pytest.fail("an attention map was formed"))
    assert model.logits(random_tokens(2, 9, "none")).shape == (2, 9, NUM_AMINO_ACIDS)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_step_that_is_compiled_is_that_of_the_fast_layer(
    size: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uncompiled; with a gap in the residue index as well, and the representation."""
    monkeypatch.setattr(torch, "compile", lambda function: function)
    given: dict[str, Any] = {"name": "x", "architecture": size, "tensors": gentle(size), "weights_sha256": ""}
    fast, compiled = Esm2Fast(**given), Esm2Compiled(**given)
    positions = torch.tensor([0, 1, 2, 103, 104, 105, 106])
    for masks, where in (("none", None), ("some", positions)):
        tokens = random_tokens(5, 7, masks)
        expected = fast.read(tokens, ["logits", "representation"], where)
        found = compiled.read(tokens, ["logits", "representation"], where)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_compiled_equals_fast_with_two_compilations(precision: str) -> None:
    """Any batch, length and mask: one compilation for a single sequence, one for several."""
    given: dict[str, Any] = {
        "name": "x", "architecture": SIZES[0], "tensors": gentle(SIZES[0]), "weights_sha256": "", "precision": precision
    }  # fmt: skip
    fast, compiled = Esm2Fast(**given), Esm2Compiled(**given)
    counters = torch._dynamo.utils.counters
    counters.clear()
    torch._dynamo.reset()
    for batch, length, masks in (
        (4, 31, "none"),
        (1, 31, "none"),
        (7, 5, "one each"),
        (3, 64, "some"),
        (40, 60, "none"),
    ):
        tokens = random_tokens(batch, length, masks)
        expected, found = fast.logits(tokens), compiled.logits(tokens)
        tolerance = 1e-4 if precision == "fp32" else 0.02 * float(expected.std())
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
    assert counters["stats"]["unique_graphs"] == 2


def test_compiled_is_refused_where_it_has_no_effect_or_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="fast=true"):
        load_model("debug", fast=False, compiled=True)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler\nand a trace")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    with pytest.raises(ValueError, match=r"C\+\+ compiler; torch.compile does not work here: no compiler$"):
        load_model("debug", compiled=True)


@pytest.mark.parametrize("told", ["nothing", "the older way", "the newer way"])
def test_what_a_gpu_computes_with_is_set_and_put_back(told: str) -> None:
    """Flags alone, which exist without a GPU: TF32 for tf32 only, whatever the process was told before."""
    matmul, before = torch.backends.cuda.matmul, torch.get_float32_matmul_precision()
    cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        if told == "the older way":
            torch.set_float32_matmul_precision("medium")
        elif told == "the newer way":
            if not hasattr(matmul, "fp32_precision"):
                pytest.skip("this PyTorch has the older way only")
            matmul.fp32_precision = "tf32"
        for precision in ("fp32", "tf32", "fp16"):
            with kernels(precision, torch.device("cuda")):
                assert _tf32() == (precision == "tf32") and not torch.backends.cuda.cudnn_sdp_enabled()
            assert _tf32() == (told != "nothing") and torch.backends.cuda.cudnn_sdp_enabled() == cudnn
    finally:
        if told == "the newer way":
            matmul.fp32_precision = "none"
        torch.set_float32_matmul_precision(before)


def _tf32() -> bool:
    """True if matrix products may be in TF32, by whichever attribute PyTorch allows to be read."""
    newer = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")
    return newer == "tf32" if newer != "none" else bool(torch.backends.cuda.matmul.allow_tf32)
