"""One HTML file that holds a whole report: text, tables, figures and an interactive view, and nothing from the network.

document.py escapes all text, in one place: ids and reasons come from users' files.
"""

from plmjac.page.sections import View, page_of

__all__ = ["View", "page_of"]
