"""Pictures on disk: PNGs of 256 colours at most, a third of the size of matplotlib's own."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from decoding.files.aside import written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_png(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write a figure as a PNG with a palette, aside and renamed.

    Args:
        figure: what is drawn.
        path: the file.
        dpi: dots an inch, above 0.
    """
    buffer = BytesIO()
    figure.savefig(buffer, dpi=dpi, format="png")
    with written_aside(path) as aside:
        aside.write_bytes(with_palette(buffer.getvalue()))


def with_palette(png: bytes) -> bytes:
    """The same picture with the 256 colours that fit it best."""
    from PIL import Image

    buffer = BytesIO()
    Image.open(BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
