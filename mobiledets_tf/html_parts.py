"""Building blocks of self-contained HTML pages without scripts or external links.

All text is escaped, and each page's content security policy allows only its own inline style and
embedded images.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mobiledets_tf.version import WRITTEN_BY

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 0.5rem; }
figure { margin: 1rem 0; } img { background: white; height: auto; max-width: 100%; }
figcaption, footer { font-size: 0.85rem; opacity: 0.8; }
dl { display: grid; gap: 0.75rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
dl div { border: 1px solid; border-radius: 0.4rem; padding: 0.5rem 0.75rem; }
dt { font-size: 0.85rem; } dd { font-size: 1.3rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th, td { border-bottom: 1px solid #8888; padding: 0.2rem 0.6rem; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; text-align: right; }
td.bar { min-width: 4rem; width: 45%; } td.bar div { background: currentColor; height: 0.7rem; }
code { overflow-wrap: anywhere; }
"""


def document(title: str, body: str) -> str:
    """Returns a complete HTML page with a plain-text title and an HTML body."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
<footer>Written by {text(WRITTEN_BY)}.</footer>
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """Returns a section: a plain-text heading followed by pieces of HTML."""
    return "\n".join(["<section>", f"<h2>{text(title)}</h2>", *parts, "</section>"])


def picture(path: Path, words: str) -> str:
    """Returns an embedded PNG file with `words` as its caption, or a note if the file is missing."""
    if not path.exists():
        return f"<p>The image {text(path.name)} does not exist.</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{text(words)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{text(words)}</figcaption></figure>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns an HTML table of plain values; all cells are escaped."""
    cells = ["".join(f"<td>{text(value)}</td>" for value in row) for row in rows]
    return wide(head(columns), [f"<tr>{row}</tr>" for row in cells])


def head(columns: Sequence[str]) -> str:
    """Returns the header row of an HTML table."""
    return f"<tr>{''.join(f'<th>{text(name)}</th>' for name in columns)}</tr>"


def wide(first: str, rows: Sequence[str]) -> str:
    """Returns a table of HTML rows that scrolls horizontally if it is wider than the page."""
    return "\n".join(['<div class="wide"><table>', first, *rows, "</table></div>"])


def text(value: Any) -> str:
    """Returns a value as escaped text; None becomes the empty string."""
    return "" if value is None else html.escape(str(value))
