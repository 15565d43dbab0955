"""Warning for a run whose model has not learned its proteins."""

SHIPPED = {
    "tiny": "the model `tiny` has learnt a few protein families, those of the demo among them, and knows no others",
    "debug": "the model `debug` has random weights and knows nothing of proteins",
}
"""Models shipped with plmjac for tests and the demo."""


def caution(model: str, dataset: str, checkpoint: object = None) -> str:
    """Warning for a shipped model on proteins other than the demo's; empty for every other run.

    `checkpoint` is a file of other weights under the same name, if given.
    """
    if model not in SHIPPED or dataset == "demo" or checkpoint is not None:
        return ""
    return f"WARNING: {SHIPPED[model]}: these maps are no predictions. Take model=esm2_650m or another ESM-2."
