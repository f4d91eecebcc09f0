"""Matplotlib figures as pictures: for the page (SVG in its light or dark colours) and as files (SVG, PNG)."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "ink": ("#1f2328", "#e6e9ed"),
    "muted": ("#5b6672", "#9ba6b1"),
    "line": ("#d3dae1", "#323b45"),
    "faint": ("#b9c2cb", "#4b5661"),
    "prompt": ("#946c00", "#d9b13b"),
    "probe": ("#2468ad", "#6fb0ee"),
    "finetune": ("#c4481d", "#f2926a"),
    "reference": ("#6a737d", "#a3adb7"),
    "first": ("#a83a83", "#e78fca"),
    "second": ("#0b7f64", "#4cc9a6"),
    "label-0": ("#1f6fc4", "#62aaf5"),
    "label-1": ("#c25700", "#f59e4c"),
    "label-2": ("#2d8636", "#66c96f"),
    "label-3": ("#c6262e", "#f47c7c"),
    "label-4": ("#7d4fb8", "#b896ec"),
    "label-5": ("#84563c", "#c79a7d"),
    "label-6": ("#c9458f", "#f19bcb"),
    "label-7": ("#6b7a12", "#bac84f"),
    "label-8": ("#0e8494", "#4fc9d8"),
    "label-9": ("#39418f", "#8f9bf0"),
}
"""Name -> the colour in light and in dark. They stay distinct with any of the usual colour blindnesses: ways differ in
lightness and marker, two labels are magenta and green (Okabe & Ito 2008), more labels have a marker each."""

OF_LABELS = [name for name in COLOURS if name.startswith("label-")]
"""The colours of more than two labels."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
DOTS = 200
SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": COLOURS["faint"][0],
    "axes.labelcolor": COLOURS["muted"][0],
    "axes.titlecolor": COLOURS["ink"][0],
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"][0],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["faint"][0],
    "ytick.color": COLOURS["faint"][0],
    "xtick.labelcolor": COLOURS["muted"][0],
    "ytick.labelcolor": COLOURS["muted"][0],
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "text.color": COLOURS["ink"][0],
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Picture:
    """`inline` goes into the page; `svg` and `png` are whole files. `alt` describes the picture in words."""

    name: str
    alt: str
    inline: str
    svg: bytes
    png: bytes

    @property
    def width(self) -> float:
        """The width in CSS pixels at which its text has its intended size."""
        found = re.search(r'viewBox="0 0 ([\d.]+)', self.inline)
        return float(found[1]) if found else 0.0


def colour(name: str) -> str:
    """The light colour. On the page a CSS variable replaces it, which has the dark colour in dark mode."""
    return COLOURS[name][0]


@contextmanager
def drawing() -> Iterator[None]:
    """Inside this block Matplotlib has our settings and makes the same bytes of the same picture."""
    from matplotlib import rc_context

    with rc_context({**SETTINGS, "svg.hashsalt": "toolkit"}):
        yield


def picture(figure: "Figure", name: str, alt: str, tips: Mapping[str, str] | None = None) -> Picture:
    """A figure as a `Picture`. `tips` maps the `gid` of an artist to its tooltip."""
    svg, png = io.StringIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names may hold letters that Matplotlib's font lacks; browsers have others
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        figure.savefig(png, format="png", dpi=DOTS, metadata={"Software": None}, facecolor="white")
    text = _font(svg.getvalue())
    whole = text.replace("<defs>", '<rect width="100%" height="100%" fill="#ffffff"/>\n<defs>', 1)
    return Picture(name, alt, _inline(text, name, alt, tips or {}), whole.encode(), png.getvalue())


def style() -> str:
    """The colours as CSS variables: light, or dark where the reader prefers it (always light on paper)."""
    light, dark = ("".join(f"--{name}:{pair[shade]};" for name, pair in COLOURS.items()) for shade in (0, 1))
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def _font(svg: str) -> str:
    return svg.replace("'DejaVu Sans'", FONT)


def _inline(svg: str, name: str, alt: str, tips: Mapping[str, str]) -> str:
    """The `<svg>` element: as wide as its container, with ids that are unique on the page and its colours."""
    svg = svg[svg.index("<svg") :]
    unwanted = r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*|<style.*?</style>\s*"
    svg = re.sub(unwanted, "", svg, flags=re.DOTALL)
    for gid, words in tips.items():
        svg = svg.replace(f'<g id="{gid}">', f"<g><title>{escape(words)}</title>")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg).replace("xlink:href", "href")
    for variable, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{variable})")
    head = f'<svg role="img" aria-label="{escape(alt)}"'
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]+\")[^>]*>", rf"{_literal(head)} \1>", svg, count=1).replace(
        f"font: 10px {FONT}", "font-size: 10px"
    )


def _literal(text: str) -> str:
    """`text` escaped for use as a replacement in `re.sub`."""
    return text.replace("\\", r"\\")
