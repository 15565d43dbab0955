"""The prediction loop: Lightning around the method, from this rank's share of the plan to committed proteins.

The only place that knows Lightning. `predict` (the entry point) puts these parts together.
"""
