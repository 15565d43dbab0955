"""plmjac: categorical Jacobians of protein language models, from one sequence to a proteome.

    import plmjac
    model = plmjac.load_model("esm2_650m", device="cuda")
    jacobian = plmjac.categorical_jacobian(model, "MKTAYIAKQR...")   # (L, 20, L, 20)
    contacts = plmjac.contact_map(jacobian)                          # (L, L)
    plmjac.couplings(jacobian, 3, 11)                                # (20, 20)
    store = plmjac.open_store("runs/pdb.zarr")
    store["1TEN_A"].contacts, store["1TEN_A"].couplings(12, 57)
    plmjac.plot_contacts(store["1TEN_A"], "1ten.pdb", path="1TEN_A.png")

Names are imported when they are first used, so that `import plmjac` costs nothing.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plmjac.api import categorical_jacobian, contact_map, couplings
    from plmjac.evaluation.pictures import plot_contacts
    from plmjac.models import load_model
    from plmjac.store import open_store

__all__ = ["categorical_jacobian", "contact_map", "couplings", "load_model", "open_store", "plot_contacts"]

_HOME = {
    "categorical_jacobian": "plmjac.api",
    "contact_map": "plmjac.api",
    "couplings": "plmjac.api",
    "load_model": "plmjac.models",
    "open_store": "plmjac.store",
    "plot_contacts": "plmjac.evaluation.pictures",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return metadata.version("plmjac")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'plmjac' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
