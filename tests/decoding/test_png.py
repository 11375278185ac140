"""Pictures are written whole, small, and without leaving anything beside them."""

from io import BytesIO

from matplotlib.figure import Figure
from PIL import Image

from decoding.files.png import save_png, with_palette


def curve() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [0, 1])
    return figure


def test_a_picture_has_a_palette_and_its_size_and_replaces_what_was_there(tmp_path):
    file = tmp_path / "curve.png"
    file.write_bytes(b"old")
    save_png(curve(), file, dpi=50)
    with Image.open(file) as picture:
        assert (picture.mode, picture.size) == ("P", (100, 50))
    assert [one.name for one in tmp_path.iterdir()] == ["curve.png"]


def test_a_palette_keeps_few_colours_as_they_are():
    buffer = BytesIO()
    picture = Image.new("RGB", (8, 8), (255, 255, 255))
    picture.paste((200, 30, 10), (2, 2, 5, 5))
    picture.save(buffer, "PNG")
    again = Image.open(BytesIO(with_palette(buffer.getvalue()))).convert("RGB")
    assert again.tobytes() == picture.tobytes()
