"""The linear baselines of a protein language model: couplings and contact maps from an alignment of a family alone.

alignment.py reads one and finds the protein's residues in its columns, covariance.py inverts its covariance as the
paper does, pseudolikelihood.py fits a Markov random field to it as GREMLIN does.
"""

from plmjac.coevolution.alignment import (
    GAP,
    NUM_STATES,
    AlignmentOfProtein,
    Query,
    columns_of_query,
    load_alignment_for,
    read_alignment,
    read_queries,
)
from plmjac.coevolution.covariance import (
    SHRINKAGE,
    coevolution,
    coupling_map,
    inverse_covariance,
    one_hot,
    partial_correlation,
)
from plmjac.coevolution.pseudolikelihood import MarkovRandomField, fit_pseudolikelihood, sequence_weights

__all__ = [
    "GAP",
    "NUM_STATES",
    "SHRINKAGE",
    "AlignmentOfProtein",
    "MarkovRandomField",
    "Query",
    "coevolution",
    "columns_of_query",
    "coupling_map",
    "fit_pseudolikelihood",
    "inverse_covariance",
    "load_alignment_for",
    "one_hot",
    "partial_correlation",
    "read_alignment",
    "read_queries",
    "sequence_weights",
]
