"""Evaluation jobs: each reads a store and returns tidy tables. One file and one YAML a job; none of them plots."""

from plmjac.evaluation.contact_precision import contact_precision

__all__ = ["contact_precision"]
