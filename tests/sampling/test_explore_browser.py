"""The page of `biggan explore` in a real browser.

It runs in `make test-full` where Chromium and playwright are (`pip install -e '.[dev,browser]'` and
Debian's `chromium`, or a path in CHROMIUM); elsewhere test_explore.py alone holds the server to its
word.
"""

import io
import json
import os
import shutil
import time
import urllib.parse

import numpy as np
import pytest
from PIL import Image

from biggan_jax import load_generator
from biggan_jax.sampling.explore import Explorer
from tests import runs
from tests.sampling.explored import NAMES, served, write_model

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
no_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
pytestmark = [pytest.mark.full, no_browser]
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox", "--disable-gpu", *QUIET]}
        yield p.chromium.launch(**options)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    model = {"num_classes": 300, "hierarchical_z": True, "dim_z": 12, "g_attention": (8,)}
    names = [f"class of number {i}" for i in range(295)]
    return write_model(tmp_path_factory.mktemp("model"), names=[*NAMES, *names], **model)


@pytest.fixture(scope="module")
def address(directory, cache_dir):
    with runs.cached_compiles(cache_dir):
        explorer = Explorer(directory)
        explorer.warm()
        with served(explorer) as client:
            yield f"http://127.0.0.1:{client.port}/"


@pytest.fixture(params=[1280, 390])
def page(browser, address, request):
    """The page with its first picture; at the end nothing else was loaded, and no script failed."""
    context = browser.new_context(viewport={"width": request.param, "height": 844})
    page = context.new_page()
    problems, requests = [], []
    page.on("pageerror", lambda error: problems.append(("error", str(error))))
    page.on("console", lambda message: problems.append((message.type, message.text)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(address)
    page.wait_for_selector("body[data-variants]")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param
    context.close()
    # A refused request is an error to the browser, and a sentence on the page.
    refused = "Failed to load resource"
    problems = [p for p in problems if p[0] != "warning" and not p[1].startswith(refused)]
    assert problems == []
    assert all(url.startswith((address, "data:", "blob:")) for url in requests)


def until(page, expression, seconds=60):
    """Waits for a condition; playwright's own waiting needs the `eval` that is forbidden."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(20)


def drawn(page, act, what="drawn"):
    """Does something, and waits for the pictures that it asks for."""
    before = int(page.evaluate(f"document.body.dataset.{what}"))
    act()
    until(page, f"document.body.dataset.{what} > {before}")
    until(page, "document.getElementById('view').ariaBusy === 'false'")


def pixels(page, canvas="#picture"):
    return page.eval_on_selector(
        canvas, "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )


def downloaded(page, name):
    with page.expect_download() as waited:
        page.click(f"[data-file='{name}']")
    with open(waited.value.path(), "rb") as file:
        return waited.value.suggested_filename, file.read()


def test_a_person_finds_a_class_and_keeps_what_is_shown(page, directory):
    first = pixels(page)
    page.focus("#class")  # by the keyboard alone
    page.keyboard.type("number 29")
    assert page.locator("#list .option").count() == 6
    page.keyboard.press("ArrowDown")
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert page.input_value("#class") == "class of number 290"
    assert pixels(page) != first
    drawn(page, lambda: page.fill("#seed", "77"))
    drawn(page, lambda: page.locator("#truncation").fill("0.5"))
    assert "seed 77 · truncation 0.5" in page.inner_text("#caption")
    name, data = downloaded(page, "latents.npz")
    assert name == "class-of-number-290_seed77.npz"
    saved = np.load(io.BytesIO(data))
    image = load_generator(directory)(saved["z"], saved["labels"])[0]
    assert saved["labels"] == 295
    name, data = downloaded(page, "image")
    picture = np.asarray(Image.open(io.BytesIO(data)))
    assert np.abs(picture - (image + 1) * 127.5).max() <= 1
    shown = np.array(pixels(page)).reshape(16, 16, 4)
    np.testing.assert_array_equal(shown[..., :3], picture)
    kept = json.loads(downloaded(page, "latents.json")[1])
    assert kept["sample"]["sample"]["seed"] == 77


def test_names_that_no_class_has(page):
    page.fill("#class", "grösse")  # without capitals
    assert page.inner_text("#list .option >> nth=0").startswith("Größe")
    page.fill("#class", "Gräße")
    page.keyboard.press("Enter")
    page.wait_for_selector("#error:not([hidden])")
    assert "did you mean 'Größe'" in page.inner_text("#error")
    page.fill("#class", "")
    assert "more: type a part of the name" in page.inner_text("#list .note")
    page.keyboard.press("Escape")
    assert page.input_value("#class") == "cat"


def test_chunks_variants_weights_and_the_way_between(page):
    first = pixels(page)
    drawn(page, lambda: page.locator("#chunk1").fill("90"))
    walked = pixels(page)
    drawn(page, lambda: page.click("[aria-label='Draw chunk 1 from another seed']"))
    assert first != walked != pixels(page)
    drawn(page, lambda: page.click("#reset"))
    assert pixels(page) == first
    page.click("#pinA")
    drawn(page, lambda: page.click(".variant >> nth=5"), "variants")
    assert page.get_attribute(".variant >> nth=5", "aria-pressed") == "true"
    fifth = pixels(page)
    assert fifth == pixels(page, ".variant:nth-child(6) canvas") != first
    page.click("#pinB")
    drawn(page, lambda: page.locator("#at").fill("50"))
    assert pixels(page) not in (first, fifth)
    drawn(page, lambda: page.click(".variant >> nth=11"))
    assert pixels(page) == fifth
    drawn(page, lambda: page.click("[aria-label='Show A']"))
    assert pixels(page) == first
    drawn(page, lambda: page.click("#weights label >> nth=1"))
    assert pixels(page) != first
    until(page, "location.hash.length > 10")
    page.wait_for_timeout(400)
    hash_ = json.loads(urllib.parse.unquote(page.evaluate("location.hash")[1:]))
    assert hash_["weights"] == "raw" and hash_["seed"] == 0


def test_attention_where_the_pointer_is(page):
    page.check("#look")
    page.hover("#view", position={"x": 5, "y": 5})
    page.wait_for_selector("body[data-attention='0,0']")
    assert page.locator("#view.lit").count() == 1
    corner = pixels(page, "#heat")
    page.hover("#view", position={"x": 5, "y": 200})
    until(page, "document.body.dataset.attention !== '0,0'")
    assert pixels(page, "#heat") != corner
    page.focus("#view")
    place = page.evaluate("document.body.dataset.attention")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    until(page, f"document.body.dataset.attention !== '{place}'")
    page.uncheck("#look")
    assert page.locator("#view.lit").count() == 0


def test_a_bookmark_and_an_address_of_nonsense(browser, address):
    context = browser.new_context()
    for hash_, seed in (('{"seed":123,"class":9999,"chunks":[null]}', "123"), ("%%%", "0")):
        page = context.new_page()
        page.goto(f"{address}#{urllib.parse.quote(hash_) if hash_[0] == '{' else hash_}")
        page.wait_for_selector("body[data-variants]")
        assert page.input_value("#seed") == seed and page.input_value("#class") == "cat"
    context.close()


def test_a_server_that_has_ended(browser, directory):
    with served(Explorer(directory)) as client:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{client.port}/")
        page.wait_for_selector("body[data-variants]")
    page.click("#dice")
    page.wait_for_selector("#error:not([hidden])")
    assert "start biggan explore again" in page.inner_text("#error")
    page.close()
