"""Figures from tables and arrays. The only place that imports matplotlib; nothing here computes or reads a store.

Each function draws into a new `Figure`, which `save` writes and lets go of.
"""

import matplotlib

matplotlib.use("Agg")  # files only: a run on a cluster has no screen

from matplotlib.figure import Figure

from plmjac.plots.curves import (
    Curve,
    attention_heads,
    capacity_estimates,
    correlations,
    cost_curve,
    false_discovery,
    paired_scores,
    precision_curves,
    relatives,
)
from plmjac.plots.files import save, warned
from plmjac.plots.maps import ConformationPanel, MapPanel, conformation_maps, contact_maps, coupling_blocks, protein_map

__all__ = [
    "ConformationPanel", "Curve", "Figure", "MapPanel", "attention_heads", "capacity_estimates", "conformation_maps",
    "contact_maps", "correlations", "cost_curve", "coupling_blocks", "false_discovery", "paired_scores",
    "precision_curves", "protein_map", "relatives", "save", "warned",
]  # fmt: skip
