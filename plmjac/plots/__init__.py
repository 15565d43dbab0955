"""Figures from tables and arrays. The only place that imports matplotlib; nothing here computes or reads a store.

One file a kind of figure; each draws into a new `Figure`, which `save` writes and lets go of.
"""

import matplotlib

matplotlib.use("Agg")  # files only: a run on a cluster has no screen

from matplotlib.figure import Figure

from plmjac.plots.approximations import cost_curve
from plmjac.plots.attention import attention_heads
from plmjac.plots.capacity import capacity_estimates
from plmjac.plots.complexes import ComplexPanel, complex_maps
from plmjac.plots.conformations import ConformationPanel, conformation_maps
from plmjac.plots.couplings import correlations, coupling_blocks
from plmjac.plots.false_discovery import false_discovery
from plmjac.plots.files import plain_ticks, save, warned
from plmjac.plots.maps import MapPanel, contact_map, contact_maps, true_contacts
from plmjac.plots.precision import Curve, paired_scores, precision_curves
from plmjac.plots.relatives import relatives

__all__ = [
    "ComplexPanel",
    "ConformationPanel",
    "Curve",
    "Figure",
    "MapPanel",
    "attention_heads",
    "capacity_estimates",
    "complex_maps",
    "conformation_maps",
    "contact_map",
    "contact_maps",
    "correlations",
    "cost_curve",
    "coupling_blocks",
    "false_discovery",
    "paired_scores",
    "plain_ticks",
    "precision_curves",
    "relatives",
    "save",
    "true_contacts",
    "warned",
]
