import base64
import io
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from components.shared.report.page import (
    Figures,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    draw,
    photograph,
    render_page,
)


def page_of(*blocks):
    return render_page("Title", "Subtitle", [Section("First", blocks)])


def cells(page):
    return re.findall(r"<td[^>]*>(.*?)</td>", page)


def test_shows_every_kind_of_block():
    page = page_of(
        "A paragraph.",
        Figures([("patients", "71", "at 5 sites")]),
        Table(("name", "value"), [("one", 1)]),
        Picture("data:image/png;base64,AA", "A picture", 300),
        Gallery([Picture("data:image/png;base64,BB", "Another")]),
        Notice("bad", "Look here"),
    )
    for text in ("<p>A paragraph.</p>", "at 5 sites", "A picture", "Another", "Look here"):
        assert text in page
    assert page.count("<img") == 2
    assert 'class="notice bad"' in page


def test_names_its_sections_twice_heading_and_link():
    page = render_page("T", "S", [Section("First", []), Section("Second", [])])
    assert '<a href="#s2">Second</a>' in page
    assert '<section id="s2">' in page


def test_escapes_all_text():
    evil = "<b onload='x'>&"
    page = render_page(
        evil,
        evil,
        [
            Section(
                evil,
                [
                    evil,
                    Figures([(evil, evil, evil)]),
                    Table((evil,), [(evil,)]),
                    Picture("data:,", evil),
                    Notice("good", evil),
                ],
            )
        ],
    )
    assert "<b onload" not in page
    assert "&lt;b onload=&#39;x&#39;&gt;&amp;" in page


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (1234, "1,234"),
        (0.5, "0.500"),
        (-0.0625, "-0.062"),
        (12.34, "12.3"),
        (2345.6, "2,346"),
        (float("nan"), "-"),
        (None, "-"),
        ("text", "text"),
    ],
)
def test_shows_cells_as_people_write_them(cell, shown):
    assert cells(page_of(Table(("column",), [(cell,)]))) == [shown]


def test_numbers_keep_their_value_for_sorting_and_stand_right():
    page = page_of(Table(("name", "value"), [("a", None), ("b", 0.123456)]))
    assert 'data-value="0.123456"' in page
    assert re.findall(r"<th( class=\"number\")?>", page) == ["", ' class="number"']


def test_long_tables_are_cut_and_say_so():
    rows = [(number,) for number in range(5)]
    page = page_of(Table(("n",), rows, most_rows=3))
    assert cells(page) == ["0", "1", "2"]
    assert "The first 3 of 5 rows." in page
    assert "The first" not in page_of(Table(("n",), rows, most_rows=5))


def test_equal_figures_make_equal_bytes():
    def figure():
        drawn = Figure()
        drawn.subplots().plot([1, 2, 3])
        return draw(drawn)

    assert figure() == figure()
    kind, _, data = figure().partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(data)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 3)])
def test_photographs_keep_what_they_show(shape):
    brightness = np.linspace(0, 250, 9)
    pixels = np.broadcast_to(brightness.reshape(9, *[1] * (len(shape) - 1)), shape).astype(np.uint8)
    kind, _, data = photograph(pixels).partition(",")
    assert kind == "data:image/webp;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), dtype=float)
    assert shown.shape == (9, 7, 3)
    np.testing.assert_allclose(shown.mean(axis=(1, 2)), brightness, atol=10)


def test_shows_control_characters_as_escapes():
    name = "scan\u202e\x1b[2J\x9b\nnext"
    page = render_page(name, name, [Section(name, [name, Table((name,), [(name,)])])])
    assert r"scan\u202e\x1b[2J\x9b\nnext" in page
    assert not set("\u202e\x1b\x9b") & set(page)
