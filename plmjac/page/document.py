"""The parts of a report's page (tables, figures, terms) as HTML, and the page itself."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources

import pandas as pd

from plmjac.plots import Figure

MAX_ROWS = 500


@dataclass(frozen=True)
class Section:
    """A heading and the HTML under it; `anchor` is the name that links use."""

    anchor: str
    title: str
    body: str


def anchor_of(name: str) -> str:
    """A name as an anchor: letters, digits, `_` and `-`; what else it holds is a `-`."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", name)


def note(text: str, *, warning: bool = False) -> str:
    """A paragraph in small type; a warning in red."""
    return f'<p class="note{" warn" if warning else ""}">{escape(text)}</p>'


def terms(items: Mapping[str, object]) -> str:
    """Names and their values, one a line."""
    lines = (f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>" for name, value in items.items())
    return f"<dl>{''.join(lines)}</dl>"


def printed(text: str) -> str:
    """Text as it is, in type of one width."""
    return f"<pre>{escape(text)}</pre>"


def folded(title: str, body: str) -> str:
    """A part that opens with a click on its title; `body` is HTML."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def table(rows: pd.DataFrame, *, digits: int = 3, most: int | None = MAX_ROWS) -> str:
    """A table; beyond `most` rows it says how many are left out. NaN is an empty cell."""
    numeric = [pd.api.types.is_numeric_dtype(rows[name]) for name in rows.columns]
    kinds = ["" if number else ' class="text"' for number in numeric]
    head = "".join(f"<th{kind}>{escape(str(name))}</th>" for kind, name in zip(kinds, rows.columns, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{_cell(value, digits)}</td>" for kind, value in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows.iloc[:most].itertuples(index=False)
    )
    rest = len(rows) - (len(rows) if most is None else most)
    more = note(f"{rest} more rows are in the tables beside the store") if rest > 0 else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _cell(value: object, digits: int) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) >= 2 else f"{value:.{digits}f}"
    return escape(str(value))


def figure(drawn: Figure, name: str) -> str:
    """A figure as SVG within the page; its ids are made its own, for two figures in one page share them otherwise."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg")
    drawn.clear()
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{anchor_of(name)}-", svg)
    return f'<div class="figure" role="img" aria-label="{escape(name)}">{svg}</div>'


def write_page(title: str, lead: str, sections: Sequence[Section], script: str = "", footer: str = "") -> str:
    """The whole file; `script` is that of `explorer`, if the page has an interactive view."""
    style = resources.files("plmjac.page").joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{escape(section.anchor)}">{escape(section.title)}</a>' for section in sections)
    body = "".join(
        f'<section id="{escape(section.anchor)}"><h2>{escape(section.title)}</h2>{section.body}</section>'
        for section in sections
    )
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body>'
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p><nav>{links}</nav></header>'
        f"<main>{body}</main><footer>{escape(footer)}</footer>{script}</body></html>\n"
    )
