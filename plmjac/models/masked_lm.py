"""Any masked language model over single residues that transformers loads: BERT, RoBERTa, ESM and others.

Vocabularies differ, so the ids of letters, mask and ends come from the tokenizer. Properties of the model are probed:
whether its positions are learned and how many there are, whether residue indices have an effect, whether it gives
attention maps. Models that do not fit are refused with a ValueError. Attention maps are computed by transformers'
slower code, all layers at once.
"""

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from plmjac.alphabet import AMINO_ACIDS, MASK, NONCANONICAL, NUM_AMINO_ACIDS
from plmjac.models.base import BosEos, LanguageModel, Precision, indices_of, kernels
from plmjac.models.checkpoints import sha256_of_weights
from plmjac.models.counting import CountedSize
from plmjac.models.pretrained import folder_of, import_transformers, quiet, readable_errors
from plmjac.models.vocabulary import Vocabulary, vocabulary_of

log = logging.getLogger(__name__)


def load(
    *,
    name: str,
    checkpoint: str | Path | None,
    revision: str | None,
    trust_remote_code: bool,
    bos_eos: BosEos,
    precision: Precision,
    device: torch.device,
) -> LanguageModel:
    """Load a masked language model from a folder or from Hugging Face's hub, on a device.

    Raises ValueError if transformers or weights are missing, or the tokenizer lacks a token for an amino acid.
    """
    transformers = import_transformers()
    folder = folder_of(checkpoint, revision, trust_remote_code)
    trust = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    with quiet(transformers), readable_errors(folder):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **trust)
        vocabulary = vocabulary_of(tokenizer, str(folder))
        net, found = transformers.AutoModelForMaskedLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **trust
        )
    missing = sorted(key for key in found["missing_keys"] if "contact_head" not in key)
    if missing or found["mismatched_keys"]:
        absent = missing or [key[0] for key in found["mismatched_keys"]]
        raise ValueError(
            f"{folder} lacks {absent[0]} of a {type(net).__name__} ({len(absent)} in all), which transformers would "
            "make up at random; is it the checkpoint of a masked language model, with its head?"
        )
    model = MaskedLM(
        net, vocabulary, name=name, weights_sha256=sha256_of_weights(folder), bos_eos=bos_eos, precision=precision,
        contact_head=not any("contact_head" in key for key in found["missing_keys"]),
    )  # fmt: skip
    config = {key: value for key, value in net.config.to_dict().items() if not key.startswith("_")}
    model.facts = {"config_sha256": _digest(config, vocabulary)}
    if not Path(str(checkpoint)).exists():
        model.facts |= {"repository": str(checkpoint), "revision": folder.name}
    if vocabulary.strangers:
        unknown = vocabulary.ids[(AMINO_ACIDS + NONCANONICAL).index(vocabulary.strangers[0])]
        log.info("%s has no token for %s; they are read as its token %d", folder, vocabulary.strangers, unknown)
    return model.to(device)


def size(
    *,
    name: str,
    kind: str,
    checkpoint: str | Path | None,
    revision: str | None,
    trust_remote_code: bool,
    precision: Precision,
    **_: Any,
) -> CountedSize:
    """Cost of a masked language model, from its configuration; downloads only the small files of a repository."""
    transformers = import_transformers()
    folder = folder_of(checkpoint, revision, trust_remote_code, weights=False)
    with quiet(transformers), readable_errors(folder):
        trust = {"trust_remote_code": trust_remote_code, "local_files_only": True}
        vocabulary = vocabulary_of(transformers.AutoTokenizer.from_pretrained(folder, **trust), str(folder))
        config = transformers.AutoConfig.from_pretrained(folder, **trust)
        return counted_size(config, precision, len(vocabulary.before) + len(vocabulary.after), trust_remote_code)


class MaskedLM(LanguageModel):
    """A transformers model in eval mode and float32; in fp16 its forward, head included, runs under autocast.

    `net` comes from AutoModelForMaskedLM. `bos_eos="mask"` replaces the tokens before and after the sequence by the
    mask. `max_length` is the number of residues that learned positions allow; None without a limit.
    """

    _ids: Tensor

    def __init__(
        self,
        net: nn.Module,
        vocabulary: Vocabulary,
        *,
        name: str,
        weights_sha256: str,
        bos_eos: BosEos = "keep",
        precision: Precision = "fp32",
        contact_head: bool = True,
    ) -> None:
        super().__init__()
        self.name, self.weights_sha256, self.precision = name, weights_sha256, precision
        self.net: Any = net.requires_grad_(False)
        self.eval()
        self.register_buffer("_ids", torch.tensor(vocabulary.ids), persistent=False)
        masked = bos_eos == "mask"
        self._before, self._after = (
            [vocabulary.ids[MASK] if masked else token for token in tokens]
            for tokens in (vocabulary.before, vocabulary.after)
        )
        ids = self._probe(7)
        with torch.inference_mode():
            self._first_position, positions = learned_positions(self.net, lambda: self.net(input_ids=ids))
        self._takes_positions = positions is not None and self._positions_matter()
        self.max_length = None if positions is None else positions - self._ends
        self.readouts = frozenset({"logits"} | self._other_readouts(contact_head))

    @property
    def size(self) -> CountedSize:
        """Costs, counted in a forward on fake tensors."""
        if not hasattr(self, "_size"):
            trust = not type(self.net).__module__.startswith("transformers.")
            self._size = counted_size(self.net.config, self.precision, self._ends, trust)
        return self._size

    def read(
        self,
        tokens: Int64[Tensor, "B L"],
        readouts: Collection[str],
        positions: Int64[Tensor, " L"] | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """All requested readouts from one forward; attention maps of all layers are in memory at once."""
        self.check_readouts(readouts)
        wanted = self.wanted_heads(heads) if "attention" in readouts else []
        ids = self._to_ids(tokens)
        given = self._position_ids(tokens.shape[1], positions)
        maps = bool({"attention", "contact_head"} & set(readouts))
        with torch.inference_mode(), kernels(self.precision, ids.device):
            logits, hidden, attentions = self._forward(ids, given, maps)
        inner = slice(len(self._before), len(self._before) + tokens.shape[1])
        results: dict[str, Tensor] = {}
        if "logits" in readouts:
            results["logits"] = logits[:, inner].float().index_select(2, self._ids[:NUM_AMINO_ACIDS])
        if "representation" in readouts:
            assert hidden is not None
            results["representation"] = hidden[:, inner].float().clone()
        if "attention" in readouts:
            chosen = attentions if heads is None else [attentions[layer][:, head] for layer, head in wanted]
            results["attention"] = torch.stack([each.float() for each in chosen], dim=1)[..., inner, inner].clone()
        if "contact_head" in readouts:
            with torch.inference_mode():
                contacts = self.net.base_model.contact_head(ids, torch.stack(attentions, dim=1).float())
            results["contact_head"] = contacts.float().clone()
        return results

    def why_not(self, readout: str) -> str:
        """Sentence that says which readouts this model has."""
        return f"{super().why_not(readout)}: a {type(self.net).__name__} does not give it, or its weights are not there"

    def _forward(self, ids: Tensor, positions: Tensor | None, maps: bool) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Logits of all tokens, the last hidden state, and with `maps` the attention maps of all layers."""
        hidden: list[Tensor] = []
        hook = self.net.base_model.register_forward_hook(lambda _module, _given, out: hidden.append(out[0]))
        given = {} if positions is None else {"position_ids": positions.expand_as(ids)}
        half = torch.autocast(ids.device.type, torch.float16, enabled=self.precision == "fp16")
        try:
            with half, self._eager() if maps else contextlib.nullcontext():
                out = self.net(input_ids=ids, **given, **({"output_attentions": True} if maps else {}))
        finally:
            hook.remove()
        state = hidden[0] if hidden and self.net.base_model is not self.net else None
        return out.logits, state, list(out.attentions or []) if maps else []

    @contextlib.contextmanager
    def _eager(self) -> Iterator[None]:
        """Switch to attention code that forms its maps, within the context."""
        before = self.net.config._attn_implementation
        self.net.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.net.set_attn_implementation(before)

    def _to_ids(self, tokens: Int64[Tensor, "B L"]) -> Int64[Tensor, "B T"]:
        """Translate our tokens to the model's and add its ends. Raises ValueError for a length that it cannot take."""
        batch, length = tokens.shape
        if length == 0:
            raise ValueError("a sequence of no residues has no logits")
        if self.max_length is not None and length > self.max_length:
            raise ValueError(f"{self.name} has learned positions for {self.max_length} residues, these are {length}")
        # index_select refuses negative tokens, which indexing would wrap around to MASK.
        residues = self._ids.index_select(0, tokens.reshape(-1)).view(batch, length)
        before, after = (
            torch.tensor(each, dtype=torch.int64, device=tokens.device).expand(batch, -1)
            for each in (self._before, self._after)
        )
        return torch.cat([before, residues, after], dim=1)

    def _position_ids(self, length: int, positions: Int64[Tensor, " L"] | None) -> Int64[Tensor, " T"] | None:
        """Position ids for gaps between chains; None for consecutive residues, which every model counts by itself.

        Raises ValueError if the model cannot take them: positions have no effect, or exceed the learned ones.
        """
        indices = indices_of(length, positions, self._ids.device)
        if positions is None or bool((indices.diff() == 1).all()):
            return None
        if not self._takes_positions:
            raise ValueError(f"{self.name} takes no residue indices: a gap between chains would have no effect")
        residues = indices[1:-1] - 1 + len(self._before)
        last = int(residues[-1])
        before = torch.arange(len(self._before), device=residues.device)
        after = torch.arange(last + 1, last + 1 + len(self._after), device=residues.device)
        if self.max_length is not None and last + 1 > self.max_length + len(self._before):
            raise ValueError(f"{self.name} has learned positions for {self.max_length} residues; make the gap smaller")
        return torch.cat([before, residues, after]) + self._first_position

    @property
    def _ends(self) -> int:
        """Number of tokens before and after a sequence."""
        return len(self._before) + len(self._after)

    def _probe(self, length: int) -> Int64[Tensor, "1 T"]:
        return torch.tensor([[*self._before, *[int(self._ids[0])] * length, *self._after]])

    def _positions_matter(self) -> bool:
        """True if unusual position ids change the logits and the usual ones do not."""
        ids = self._probe(7)
        usual = torch.arange(ids.shape[1])[None] + self._first_position
        with torch.inference_mode():
            try:
                plain, same, other = (
                    self.net(input_ids=ids, **given).logits
                    for given in ({}, {"position_ids": usual}, {"position_ids": usual + (usual > usual[0, 4])})
                )
            except TypeError:  # no such argument
                return False
        return torch.allclose(plain, same, atol=1e-5) and not torch.allclose(plain, other, atol=1e-5)

    def _other_readouts(self, contact_head: bool) -> set[str]:
        """Names of the readouts besides logits, from trial forwards."""
        ids = self._probe(3)
        with torch.inference_mode():
            logits, hidden, _ = self._forward(ids, None, maps=False)
            if logits.shape[:2] != ids.shape:
                raise ValueError(
                    f"{self.name} gives logits of shape {tuple(logits.shape)} for {tuple(ids.shape)} tokens"
                )
            try:
                maps = self._forward(ids, None, maps=True)[2]
            except (TypeError, ValueError, AttributeError):  # code of a repository may not support attention maps
                maps = []
        has_maps = bool(maps) and all(each.ndim == 4 and each.shape[-1] == ids.shape[1] for each in maps)
        found = {"representation"} if hidden is not None and hidden.shape[:2] == ids.shape else set()
        if has_maps:
            found.add("attention")
            if contact_head and hasattr(self.net.base_model, "contact_head") and len(self._before) == 1:
                found.add("contact_head")
        return found


def learned_positions(net: Any, forward: Callable[[], Any]) -> tuple[int, int | None]:
    """Index of the first learned position that a forward looks up, and the number from there on; (0, None) without any.

    If the embedding of positions has a padding index, transformers counts from the next one.
    """
    count = getattr(net.config, "max_position_embeddings", None)
    words = net.get_input_embeddings()
    found: list[tuple[int, int]] = []

    def look(module: nn.Embedding, _given: Any, _out: Any) -> None:
        first = 0 if module.padding_idx is None else module.padding_idx + 1
        found.append((first, module.num_embeddings - first))

    hooks = [
        module.register_forward_hook(look)
        for module in net.modules()
        if isinstance(module, nn.Embedding) and module is not words and module.num_embeddings == count
    ]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else (0, None)


def counted_size(config: Any, precision: Precision, ends: int, trust_remote_code: bool) -> CountedSize:
    """Costs of the model of a transformers configuration, counted on fake tensors; `ends` tokens are not residues."""
    transformers = import_transformers()
    mode = FakeTensorMode()
    with mode, quiet(transformers):
        net = transformers.AutoModelForMaskedLM.from_config(config, trust_remote_code=trust_remote_code).eval()
    numbers = sum(parameter.numel() for parameter in net.parameters())

    def forward(batch: int, length: int, maps: bool) -> Any:
        net.set_attn_implementation("eager" if maps else "sdpa")
        with mode, torch.no_grad(), torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
            return net(input_ids=torch.full((batch, length + ends), 6), output_attentions=maps)

    positions = learned_positions(net, lambda: forward(1, 7, False))[1]
    layers, heads = getattr(config, "num_hidden_layers", 0), getattr(config, "num_attention_heads", 0)
    width = getattr(config, "hidden_size", "?")
    return CountedSize(
        forward,
        description=f"{config.model_type}, {layers} layers of width {width} with {heads} heads",
        num_parameters=numbers,
        weights=4 * numbers,
        num_layers=layers,
        num_heads=heads,
        longest=None if positions is None else positions - ends,
    )


def _digest(config: dict[str, Any], vocabulary: Vocabulary) -> str:
    """Hash of configuration and vocabulary, which determine the numbers together with the weights."""
    told = {key: value for key, value in config.items() if key not in ("transformers_version", "dtype", "torch_dtype")}
    text = json.dumps([told, vocabulary.ids, vocabulary.before, vocabulary.after], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
