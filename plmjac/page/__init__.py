"""One HTML file that holds a whole report: text, tables, figures and an interactive view, and nothing from the network.

document.py escapes all text, in one place: ids and reasons come from users' files.
"""

from plmjac.page.document import Section, figure, folded, note, printed, table, terms, write_page
from plmjac.page.explorer import MIN_SEPARATION, ExplorerProtein, couplings_of, explorer
from plmjac.page.sections import count, evaluation_section, maps_section, records_section, run_section

__all__ = [
    "MIN_SEPARATION",
    "ExplorerProtein",
    "Section",
    "count",
    "couplings_of",
    "evaluation_section",
    "explorer",
    "figure",
    "folded",
    "maps_section",
    "note",
    "printed",
    "records_section",
    "run_section",
    "table",
    "terms",
    "write_page",
]
