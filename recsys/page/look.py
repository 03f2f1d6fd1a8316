"""The look of plots: colours that a page names, and each figure as one inline SVG."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

INK, FAINT, MODEL, FIXED, BOUND, BASELINE = "#1c2430", "#dfe4ea", "#2459d3", "#7f9ce6", "#12805c", "#9aa5b4"
LINES = {"#8a94a3": "line-1", "#3f9aa8": "line-2", "#d9822b": "line-3", "#b0509b": "line-4", "#7a5cc9": "line-5"}
LINES |= {"#b5483f": "line-6"}
# What a page calls each colour (style.html), which lets it be another one on a dark screen.
NAMES = {INK: "ink", FAINT: "line", MODEL: "model", FIXED: "fixed", BOUND: "good", BASELINE: "baseline", **LINES}
WIDTH = 5.2  # inches: two plots stand side by side, or one above the other in a narrow window
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "recsys",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


def as_svg(figure: Figure) -> str:
    """The figure as an element to put into a page; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    for colour, name in NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    return text[text.index("<svg") :]
