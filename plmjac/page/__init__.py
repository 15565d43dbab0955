"""One HTML file that holds a whole report: text, tables, figures and an interactive view, and nothing from the network.

Builds strings from what it is given; it neither reads a store nor computes. All text is escaped here, in one place:
ids and reasons come from users' files.
"""

from plmjac.page.document import Section, figure, folded, note, printed, table, terms, write_page
from plmjac.page.explorer import MIN_SEPARATION, ExplorerProtein, couplings_of, explorer

__all__ = [
    "MIN_SEPARATION",
    "ExplorerProtein",
    "Section",
    "couplings_of",
    "explorer",
    "figure",
    "folded",
    "note",
    "printed",
    "table",
    "terms",
    "write_page",
]
