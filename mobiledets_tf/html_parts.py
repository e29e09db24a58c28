"""Parts of a self-contained HTML page: no script, no link to the network.

All text is escaped, and the page forbids itself everything but its own style and pictures.
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
    """A whole page; `body` is HTML."""
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
    """A heading with HTML below it."""
    return "\n".join(["<section>", f"<h2>{text(title)}</h2>", *parts, "</section>"])


def picture(path: Path, words: str) -> str:
    """A PNG file inside the page, with words below it; where there is none, that is said."""
    if not path.exists():
        return f"<p>No picture {text(path.name)}.</p>"
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{text(words)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{text(words)}</figcaption></figure>"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of plain values."""
    cells = ["".join(f"<td>{text(value)}</td>" for value in row) for row in rows]
    return wide(head(columns), [f"<tr>{row}</tr>" for row in cells])


def head(columns: Sequence[str]) -> str:
    """The head row of a table."""
    return f"<tr>{''.join(f'<th>{text(name)}</th>' for name in columns)}</tr>"


def wide(first: str, rows: Sequence[str]) -> str:
    """A table of HTML rows that scrolls sideways where it does not fit."""
    return "\n".join(['<div class="wide"><table>', first, *rows, "</table></div>"])


def text(value: Any) -> str:
    """Escaped; nothing for None."""
    return "" if value is None else html.escape(str(value))
