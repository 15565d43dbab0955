"""The arrays that a protein of a store can have, by name: shape, type, chunks, and what each is made from.

One table: the `keep` key, the writer, the forecast of bytes, `store[id].<name>`, the maps that evaluations compare,
`--help` and docs/format.md read it. A new readout is one call of `register_readout`, before the settings are checked.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ReadoutSpec:
    """One array of a protein.

    `shape` names the axes: L residues, R those of them that are mutated (all, unless `positions` says which), P pairs,
    A substituted letters, 20 amino acids, layers, heads; of masking runs S segments, N contexts, W residues of a
    window. `chunks` is the shape of a chunk in the same words, with 1 for one at a time and `rows` for a block of rows;
    empty: the whole array. `needs_mutants` is True for what the substitutions change, False for what one forward of the
    wild type gives; `is_map` for a contact map (L, L) or (R, L) that evaluations can score. `kinds` are the kinds of
    run that can keep it; empty for what a run writes without being asked.

    `reads` names the readouts of the language model that it is made from, and `make`, or the function that
    "module:function" names, computes it from these, one argument each and without the batch's axis; None: the one
    readout as it is. With `needs_mutants`, `make` is given the rows (R, A, L, 20) of each block of the Jacobian and
    returns as many rows; contacts, couplings and representation are made by the run itself. `beside` names a readout
    without which this one cannot be read, and which is kept with it.
    """

    name: str
    shape: tuple[str, ...]
    dtype: str = "float32"
    chunks: tuple[str, ...] = ()
    needs_mutants: bool = False
    is_map: bool = False
    description: str = ""
    kinds: tuple[str, ...] = ("jacobian",)
    reads: tuple[str, ...] = ()
    make: "Callable[..., Tensor] | str | None" = None
    beside: str = ""

    def __post_init__(self) -> None:
        if self.chunks and len(self.chunks) != len(self.shape):
            raise ValueError(f"readout {self.name}: chunks {self.chunks} of an array with axes {self.shape}")
        if self.is_map and self.shape not in (("L", "L"), ("R", "L")):
            raise ValueError(f"readout {self.name}: a map has the axes L, L or R, L and not {self.shape}")

    def computed(self, *tensors: "Tensor") -> "Tensor":
        """The array, made from the readouts of the model in `reads`, or from a block of the Jacobian."""
        make = self.make
        if isinstance(make, str):
            module, _, function = make.partition(":")
            make = getattr(import_module(module), function)
        return make(*tensors) if make is not None else tensors[0]

    def dimensions(self, number: int, *, is_part: bool = False) -> tuple[str, ...]:
        """Names of the axes of an array with so many, no two the same: i, a, j, b of a Jacobian, i, j of a map.

        An array with one more axis in front holds the readout of several contexts. `is_part` is True where not all
        residues are mutated: rows are those of the mutated ones, and called row.
        """
        names = ["context"] * (number - len(self.shape))
        shape = ["L" if axis == "R" else axis for axis in self.shape]
        for at, axis in enumerate(shape):
            alike = " ".join(each for each in shape if each == axis)
            numbered = " ".join(f"of_{axis}_{n}" for n in range(len(alike.split())))
            name = DIMENSIONS.get(alike, numbered).split()[shape[:at].count(axis)]
            names.append("row" if is_part and self.shape[at] == "R" else name)
        return tuple(names)

    @property
    def is_in_blocks(self) -> bool:
        """True where the array comes block of rows by block of rows, as it is computed."""
        return self.chunks[:1] == ("rows",)

    def chunk_shape(self, shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
        """The shape of a chunk of an array of this readout; `rows` is how many rows a block has.

        An array with one more axis in front holds the readout of several contexts, each of them a chunk.
        """
        more = len(shape) - len(self.shape)
        named = self.chunks or self.shape
        sizes = [1 if name == "1" else rows if name == "rows" else size
                 for name, size in zip(named, shape[more:], strict=True)]  # fmt: skip
        return (*(1 for _ in range(more)), *(max(1, size) for size in sizes))

    def num_bytes(self, sizes: Mapping[str, int]) -> int:
        """Bytes of one protein's array before compression; `sizes` has the length of each axis."""
        item = {"float32": 4, "int32": 4, "float16": 2, "int8": 1, "bool": 1}[self.dtype]
        return item * math.prod(int(axis) if axis.isdigit() else sizes[axis] for axis in self.shape)


DIMENSIONS = {
    "L": "i", "L L": "i j", "A": "a", "20": "b", "20 20": "a b", "P": "pair", "2": "side", "layers": "layer",
    "heads": "head", "S": "chosen", "4": "bound", "N": "context", "W W": "u v",
}  # fmt: skip
"""Names of axes in the store: no name twice in an array, and of one size in all arrays of a protein."""

READOUTS: dict[str, ReadoutSpec] = {}


def register_readout(spec: ReadoutSpec) -> ReadoutSpec:
    """Make a readout known. Raises ValueError for a name that another one has."""
    if READOUTS.setdefault(spec.name, spec) is not spec:
        raise ValueError(f"there is a readout {spec.name!r} already")
    return spec


def keepable(kind: str) -> list[str]:
    """The names that `keep` can hold in a kind of run ("jacobian", "recovery")."""
    return [name for name, spec in READOUTS.items() if kind in spec.kinds]


def kept_for(names: Iterable[str]) -> list[ReadoutSpec]:
    """The readouts of these names, in order, and those that have to be beside them."""
    asked = set(names)
    return [READOUTS[name] for name in sorted(asked | {READOUTS[name].beside for name in asked} - {""})]


def maps() -> tuple[str, ...]:
    """The names of the contact maps, best known first."""
    return tuple(name for name, spec in READOUTS.items() if spec.is_map)


def table(kind: str = "jacobian") -> str:
    """The readouts that a kind of run can keep, one a line, for `--help`."""
    lines = [(name, READOUTS[name]) for name in keepable(kind)]
    return "\n".join(f"  {name:16s} ({', '.join(spec.shape)})  {spec.description}" for name, spec in lines)


for _spec in (
    ReadoutSpec("contacts", ("R", "L"), needs_mutants=True, is_map=True, kinds=("jacobian", "recovery"),
                description="the contact map of the categorical Jacobian; with a schedule, of every masked context"),
    ReadoutSpec("contact_head", ("L", "L"), is_map=True, reads=("contact_head",),
                description="contact probabilities of the model's supervised head"),
    ReadoutSpec("attention", ("L", "L"), is_map=True, reads=("attention",), make="plmjac.attention:attention_map",
                description="mean contact map of the attention heads that `heads` names"),
    ReadoutSpec("attention_heads", ("layers", "heads", "L", "L"), "float16", ("1", "heads", "L", "L"),
                reads=("attention",), make="plmjac.inference.jacobian_task:every_head",
                description="the contact map of every attention head"),
    ReadoutSpec("representation", ("R", "L"), needs_mutants=True, is_map=True, reads=("representation",),
                description="contact map of the changes of the hidden state"),
    ReadoutSpec("logits", ("L", "20"), reads=("logits",), description="the wild type's logits"),
    ReadoutSpec("jacobian", ("R", "A", "L", "20"), "float16", ("rows", "A", "L", "20"), needs_mutants=True,
                description="all of the categorical Jacobian, 800 L^2 bytes a protein"),
    ReadoutSpec("jacobian_int8", ("R", "A", "L", "20"), "int8", ("rows", "A", "L", "20"), needs_mutants=True,
                make="plmjac.jacobian:in_steps", beside="jacobian_scale",
                description="all of the Jacobian in steps of jacobian_scale: half the bytes, 0.57 steps off at most"),
    ReadoutSpec("jacobian_scale", ("R", "L"), "float16", ("rows", "L"), needs_mutants=True, kinds=(),
                make="plmjac.jacobian:steps", description="with jacobian_int8: the step of each pair's block"),
    ReadoutSpec("couplings", ("P", "20", "20"), "float16", needs_mutants=True, beside="coupled_pairs",
                description="centred, symmetrised couplings of the best couplings_per_residue L pairs"),
    ReadoutSpec("coupled_pairs", ("P", "2"), "int32", needs_mutants=True, kinds=(),
                description="with couplings: the residues i < j of each pair, the highest score first"),
    ReadoutSpec("letters", ("R", "A"), "int32", kinds=(),
                description="of fewer amino acids: which one each row of the jacobian was set to"),
    ReadoutSpec("blocks", ("N", "W", "W"), kinds=("recovery",),
                description="the segment's block of each context's contact map"),
    ReadoutSpec("segments", ("S", "4"), "int32", kinds=(),
                description="start1, stop1, start2, stop2 of the two windows, half-open; a single window stands twice"),
    ReadoutSpec("reference", ("S", "W", "W"), kinds=(),
                description="the segment's block of the full sequence's contact map"),
    ReadoutSpec("segment", ("N",), "int32", kinds=(), description="row of `segments` of each context"),
    ReadoutSpec("step", ("N",), "int32", kinds=(), description="step f of each context: residues shown a side"),
    ReadoutSpec("repeat", ("N",), "int32", kinds=(), description="number of the draw of each context"),
    ReadoutSpec("visible", ("N", "L"), "bool", kinds=(), description="the residues that were not masked"),
    ReadoutSpec("recovery", ("N",), kinds=(), description="how much of the segment's contacts each context recovers"),
):  # fmt: skip
    register_readout(_spec)
