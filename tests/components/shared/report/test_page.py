import base64
import contextlib
import html
import io
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from components.shared.report.chart_style import COLORS, INK
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


def test_a_table_is_made_of_items_and_a_function_for_each_column():
    table = Table.of([3, 4], {"number": lambda one: one, "square": lambda one: one * one})
    assert table == Table(["number", "square"], [[3, 9], [4, 16]])


def test_names_its_sections_twice_heading_and_link():
    page = render_page("T", "S", [Section("First", []), Section("Second", [])])
    assert '<a href="#s2">Second</a>' in page
    assert '<section id="s2">' in page


# of a viewer that frames pages, as KFP's does; it sends messages on to the server, and when
# it is itself in the frame it says so
VIEWER = """<!doctype html><title>viewer</title>
<script>
const send = what => fetch("/message", { method: "POST", body: JSON.stringify(what) });
addEventListener("message", event => send(event.data));
if (parent !== self) parent.postMessage("the viewer's own page", "*");
</script>
<iframe sandbox="allow-scripts" width="900" height="600" srcdoc="PAGE"></iframe>"""

CLICK = """<script>
addEventListener("load", () => setTimeout(() => {  // the frame has its size by then
  document.querySelector("nav a:last-child").click();
  setTimeout(() => parent.postMessage({
    title: document.title,
    top: document.querySelector("section:last-child").getBoundingClientRect().top,
    scrolled: scrollY,
  }, "*"), 1000);
}, 1000));
</script>"""


@pytest.fixture
def show_in_viewer(tmp_path):
    """Shows a page in a viewer in Chromium, and returns the message from inside the frame."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium")

    def show(page):
        messages = queue.Queue()
        viewer = VIEWER.replace("PAGE", html.escape(page)).encode()

        class Server(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.end_headers()
                self.wfile.write(viewer)

            def do_POST(self):
                messages.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        with HTTPServer(("127.0.0.1", 0), Server) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                with browse(browser, f"http://127.0.0.1:{server.server_port}/", tmp_path):
                    return messages.get(timeout=60)
            finally:
                server.shutdown()

    return show


@contextlib.contextmanager
def browse(browser, address, profile):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    process = subprocess.Popen(
        [browser, *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def long_page():
    sections = [Section(f"Part {number}", ["A line."] * 60) for number in range(4)]
    return render_page("Report", "S", sections).replace("</body>", f"{CLICK}</body>")


def test_a_section_link_scrolls_inside_a_viewers_frame(show_in_viewer):
    found = show_in_viewer(long_page())

    assert found["title"] == "Report"
    assert found["scrolled"] > 1000
    assert abs(found["top"]) < 50


def test_the_viewer_would_replace_a_page_whose_links_do_not_scroll(show_in_viewer):
    # so that the test above can fail
    page = long_page().replace("event.preventDefault();", "return;")

    assert show_in_viewer(page) == "the viewer's own page"


def test_the_page_has_the_colors_of_the_drawings():
    page = page_of()
    defined = dict(re.findall(r"--(\w+): (#\w+);", page))
    assert set(re.findall(r"var\(--(\w+)\)", page)) == set(defined)
    assert (defined["accent"], defined["ink"]) == (COLORS[0], INK)


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
        (1.4142, "1.414"),
        (0.00234, "0.0023"),
        (0.0, "0.000"),
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


@pytest.mark.parametrize(("rows", "tall"), [(25, False), (26, True)])
def test_only_long_tables_scroll_in_themselves(rows, tall):
    page = page_of(Table(("n",), [(number,) for number in range(rows)]))
    assert ('<div class="scroll tall">' in page) == tall


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
