"""The report as one HTML file: its skeleton, and the pieces that all of it is made of, which take text and escape it."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .report_style import STYLE

MOST_PIXELS, MOST_THUMBNAIL = 1400, 384  # the longer side of a picture that a run has drawn; of a small one


def escape(text) -> str:
    """Text for HTML, in attributes too; what is no UTF-8, as names of files may be, is replaced by question marks."""
    return html.escape(str(text).encode("utf-8", "replace").decode())


def breakable(text) -> str:
    """As `escape`; a long name may be broken after an underscore."""
    return escape(text).replace("_", "_<wbr>")


def page(title: str, parts: Iterable[str]) -> str:
    """A whole document that asks for nothing from anywhere; a browser is told so, too."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="color-scheme" content="light dark">',
            f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n<style>{STYLE}</style>\n</head>\n<body>\n<main>',
            *parts,
            "</main>\n</body>\n</html>\n",
        ]
    )


def section(name: str, title: str, lead: str, content: str) -> str:
    """A part of the page. name: what links to it say; lead: what one has to know to read it, or ""."""
    told = paragraph(lead) if lead else ""
    return f'<section id="{escape(name)}">\n<h2>{escape(title)}</h2>\n{told}\n{content}\n</section>'


def heading(text: str) -> str:
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """Why something is not there."""
    return paragraph(text, "note")


def columns(parts: Sequence[str], kind: str = "grid") -> str:
    """Parts beside each other, as many as there is room for."""
    return f'<div class="{kind}">{"".join(parts)}</div>' if parts else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "", prose: bool = False) -> str:
    """The first column names the rows. It scrolls by itself where the page is too narrow; one of `prose` is stacked there."""
    if not rows:
        return ""
    top = "".join(f'<th scope="col">{breakable(cell)}</th>' for cell in head)
    body = []
    for first, *cells in rows:
        beside = "".join(f'<td data-label="{escape(label)}">{escape(cell)}</td>' for label, cell in zip(head[1:], cells))
        body.append(f'<tr><th scope="row">{breakable(first)}</th>{beside}</tr>')
    kind = ' class="prose"' if prose else ""
    told = paragraph(caption, "faint") if caption else ""
    inside = f"<table{kind}><thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f'{told}<div class="scroll" tabindex="0">{inside}</div>'


def folded(title: str, *parts: str) -> str:
    """What is there for those who ask."""
    return f"<details><summary>{escape(title)}</summary>{''.join(parts)}</details>"


def code(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def thumbnail(pixels: np.ndarray, alt: str, caption: str = "", kind: str = "", boxes: Sequence[tuple] = ()) -> str:
    """A small grey picture (h, w) uint8, with a line below it. kind: a class of the style; boxes: shares of the picture."""
    frames = [f"left:{100 * x:.1f}%;top:{100 * y:.1f}%;width:{100 * w:.1f}%;height:{100 * h:.1f}%" for x, y, w, h in boxes]
    drawn = "".join(f'<i class="box c{place % 8}" style="{frame}"></i>' for place, frame in enumerate(frames))
    small = Image.fromarray(pixels)
    small.thumbnail((MOST_THUMBNAIL, MOST_THUMBNAIL))  # a radiograph before it is cropped may have thousands of pixels
    image = f'<img src="{_as_data(small)}" alt="{escape(alt)}">'
    below = f"<figcaption>{breakable(caption)}</figcaption>" if caption else ""
    return f'<figure class="thumb {kind}"><span>{image}{drawn}</span>{below}</figure>'


def picture(path: Path, caption: str) -> str:
    """A picture that a run has drawn, made smaller; a sentence where it cannot be read."""
    try:
        with Image.open(path) as image:
            image = image.convert("RGB")
    except Exception as error:  # whatever a parser of damaged files may raise
        return note(f"{path.name} cannot be read as a picture ({type(error).__name__}).")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    return (
        f'<figure class="drawn"><img src="{_as_data(image)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _as_data(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
