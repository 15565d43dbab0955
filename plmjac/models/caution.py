"""The sentence that a run says whose model knows nothing of its proteins."""

SHIPPED = {
    "tiny": "the model `tiny` has learnt a few protein families, those of the demo among them, and knows no others",
    "debug": "the model `debug` has random weights and knows nothing of proteins",
}
"""The models that come with plmjac, for tests and the demo."""


def caution(model: str, dataset: str, checkpoint: object = None) -> str:
    """A warning for a shipped model on other proteins than the demo's; empty for every other run.

    `checkpoint` is the file of other weights under the same name, if there is one.
    """
    if model not in SHIPPED or dataset == "demo" or checkpoint is not None:
        return ""
    return f"WARNING: {SHIPPED[model]}: these maps are no predictions. Take model=esm2_650m or another ESM-2."
