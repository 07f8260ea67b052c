"""Matplotlib's SVG without what nobody sees: a page of many drawings is half as large.

Coordinates are kept to a hundredth of a point. Ids that nothing refers to, the font that the page
overrides, unpainted backgrounds and the white space between elements go.
"""

from __future__ import annotations

import re

_TAG = re.compile(r"<[^<>]+>")
_NUMBER = re.compile(r"-?\d+\.\d+")
_GEOMETRY = re.compile(r'\b(d|x|y|transform)="([^"]*)"')
_REFERENCE = re.compile(r'url\(#([^)]+)\)|href="#([^"]+)"')
_UNTURNED = re.compile(r' transform="rotate\(-?0 [^)]*\)"')
_EMPTY = re.compile(r"<g(?: [^<>]*)?(?:/>|></g>)")


def slimmed(drawing: str, name: str) -> str:
    """The same drawing in fewer bytes.

    Args:
        drawing: elements of an SVG document, as matplotlib writes them.
        name: begins the ids that are kept, so that drawings can share a page.
    """
    found = dict.fromkeys(a or b for a, b in _REFERENCE.findall(drawing))
    ids = {old: f"{name}-{number}" for number, old in enumerate(found)}
    text = _TAG.sub(lambda tag: _slim_tag(tag[0], ids), drawing)
    text = re.sub(r">\s+<", "><", text).replace('<path style="fill: none"/>', "")
    while (fewer := _EMPTY.sub("", text)) != text:
        text = fewer
    return text.strip()


def _slim_tag(tag: str, ids: dict[str, str]) -> str:
    """One tag; what stands between tags is a reader's text and stays as it is."""

    def kept(found: re.Match[str]) -> str:
        return f' id="{ids[found[1]]}"' if found[1] in ids else ""

    def referred(found: re.Match[str]) -> str:
        return f"url(#{ids[found[1]]})" if found[1] else f'href="#{ids[found[2]]}"'

    tag = re.sub(r' id="([^"]*)"', kept, tag)
    tag = _REFERENCE.sub(referred, tag.replace("xlink:href", "href"))
    tag = _UNTURNED.sub("", tag).replace("font-family: 'DejaVu Sans'; ", "")
    tag = _GEOMETRY.sub(lambda found: f'{found[1]}="{_shorter(found[2])}"', tag)
    # A path that is neither filled nor stroked: the background of a figure and of its axes.
    return re.sub(r'^<path d="[^"]*" style="fill: none"/>$', '<path style="fill: none"/>', tag)


def _shorter(geometry: str) -> str:
    """Coordinates rounded; a line's further points need no letter (SVG 2, 9.3.3).

    >>> _shorter("M 24.28149 90.499135 L 256.19976 90.5 z")
    'M24.28 90.5 256.2 90.5z'
    >>> _shorter("M 0 3 C 0.795609 3 1.55 2.683 2.12132 2.12132 L 3 -0.001 ")
    'M0 3C.8 3 1.55 2.68 2.12 2.12L3 0'
    """
    text = _NUMBER.sub(_rounded, geometry)
    text = " ".join(text.split())
    if not re.search("[CQcq]", text):
        text = text.replace(" L ", " ")
    return re.sub(r" ?([A-Zz]) ?", r"\1", text)


def _rounded(found: re.Match[str]) -> str:
    text = f"{float(found[0]):.2f}".rstrip("0").rstrip(".")
    text = re.sub(r"^(-?)0\.", r"\1.", text)
    return "0" if text in ("-0", "") else text
