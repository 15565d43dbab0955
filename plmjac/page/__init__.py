"""One HTML file that holds a whole report: text, tables, figures and an interactive view, and nothing from the network.

document.py escapes all text, in one place: ids and reasons come from users' files.
"""

from plmjac.page.document import Section, figure, folded, note, printed, table, terms, write_page
from plmjac.page.explorer import MIN_SEPARATION, ExplorerProtein, couplings_of, explorer
from plmjac.page.sections import page_of

__all__ = [
    "MIN_SEPARATION",
    "ExplorerProtein",
    "Section",
    "couplings_of",
    "explorer",
    "figure",
    "folded",
    "note",
    "page_of",
    "printed",
    "table",
    "terms",
    "write_page",
]
