"""`biggan explore`: what its server answers, held against `load_generator`, and what it refuses."""

import asyncio
import io
import json
import re
import shutil
import threading

import numpy as np
import pytest

from biggan_jax import load_generator
from biggan_jax.errors import UserError
from biggan_jax.pictures import grids
from biggan_jax.sampling import explore_app, forward, latents
from biggan_jax.sampling.explore import Explorer
from biggan_jax.sampling.explore_request import NUMBERS
from tests import runs
from tests.sampling.explored import NAMES, served, write_model

A = {"class": 3, "seed": 5}
B = {"class": 7, "seed": -6, "truncation": 0.7, "number": 2}


@pytest.fixture(scope="module")
def client(trained, cache_dir):
    """Of a run with 10 classes, attention, two chunks more than none, averages and raw weights."""
    with runs.cached_compiles(cache_dir):
        explorer = Explorer(trained)
        explorer.warm()
        with served(explorer) as found:
            yield found


@pytest.fixture(scope="module")
def generator(trained, cache_dir):
    with runs.cached_compiles(cache_dir):
        yield load_generator(trained)


def assert_same_picture(picture, image):
    """Equal but for rounding at the edge between two levels of 256."""
    assert np.abs(picture.astype(int) - grids.to_uint8(image).astype(int)).max() <= 1


def z_of(client, sample):
    return np.array(client.ask("latents.json", sample=sample)["z"], np.float32)


def test_the_page_loads_nothing_from_elsewhere(client):
    status, headers, body = client.send("GET")
    page = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/html")
    nonce = re.search("script-src 'nonce-([^']+)'", headers["content-security-policy"])[1]
    assert page.count(f'nonce="{nonce}"') == 2 == page.count("nonce=")
    assert "default-src 'none'" in headers["content-security-policy"]
    assert not re.search(r"https?://|//[a-z]+\.|@import|<link(?! rel=\"icon\")", page)
    again = client.send("GET")[2].decode()
    assert nonce not in again and again.replace("nonce", "") != page


def test_what_the_page_knows_of_the_model(client, trained):
    status, _, body = client.send("GET", "/api/model")
    model = json.loads(body)
    assert status == 200 and model["directory"] == str(trained) and model["step"] == 4
    assert model["weights"] == ["EMA", "raw"] and model["num_classes"] == 10
    assert model["chunks"] == [4, 8, 16] and model["attention"].keys() == {"attention_8"}
    assert model["start"] == {"seed": 0, "truncation": None, "truncation_kind": "resample"}


@pytest.mark.parametrize("weights", ["EMA", "raw"])
def test_pictures_are_those_of_the_generator(client, trained, weights):
    g = load_generator(trained, ema=weights == "EMA")
    z = np.concatenate([g.sample_z(5, 1), g.sample_z(-6, 1, 0.7, first=2)])
    images = g(z, np.array([3, 7]))
    for sample, image in zip((A, B), images, strict=True):
        assert_same_picture(client.ask("image", weights=weights, sample=sample), image)
    assert_same_picture(client.ask("image", weights=weights, sample=A | {"class": "3"}), images[0])
    sheet = client.ask("variants", weights=weights, sample=B)
    number_2 = sheet[:16, 32:48]
    assert sheet.shape == (48, 64, 1)
    assert_same_picture(number_2, images[1])
    last = g(g.sample_z(-6, 12, 0.7)[11:], np.array([7]))[0]
    assert_same_picture(sheet[-16:, -16:], last)


def test_a_download_makes_the_image_again(client, generator, tmp_path):
    """The three lines of docs/explore.md, and between two classes its fourth."""
    for request in ({"sample": B}, {"from": A, "to": B, "at": 0.5, "what": "z"}):
        (tmp_path / "sample.npz").write_bytes(client.ask("latents.npz", **request))
        saved = np.load(tmp_path / "sample.npz")
        image = generator(saved["z"], saved["labels"])[0]
        assert saved.keys() == {"images", "labels", "z"}
        assert_same_picture(saved["images"][0], image)
        assert_same_picture(client.ask("image", **request), image)
        kept = client.ask("latents.json", **request)
        np.testing.assert_array_equal(np.array(kept["z"], np.float32), saved["z"])
        assert kept["labels"] == saved["labels"].tolist() and kept["step"] == 4
        assert kept["sample"] == request | {"weights": "EMA"}
    request = {"from": A, "to": B, "at": 0.3}
    saved = np.load(io.BytesIO(client.ask("latents.npz", **request)))
    names = ("z", "labels", "others", "weights")
    assert (saved["labels"], saved["others"]) == (3, 7)
    image = generator.between(*(saved[name] for name in names))[0][0]
    assert_same_picture(client.ask("image", **request), image)
    assert np.abs(image - generator(saved["z"], saved["labels"])[0]).max() > 1e-3


def test_a_chunk_is_walked_or_drawn_alone(client, generator):
    own, other = generator.sample_z(5, 1)[0], generator.sample_z(77, 1)[0]
    away = generator.sample_z(5, 1, first=NUMBERS)[0]
    still = {"seed": None, "angle": 0}

    def changed(**chunk):
        return z_of(client, A | {"chunks": [still, still | chunk, still]})[0]

    half = np.sqrt(0.5)
    expected = {
        "nothing": (changed(), own),
        "seed": (changed(seed=77), other),
        "45": (changed(angle=45), half * own + half * away),
        "-90": (changed(angle=-90), -away),
        "180": (changed(angle=180), -own),
    }
    for what, (z, middle) in expected.items():
        whole = np.concatenate([own[:4], middle[4:8], own[8:]])
        np.testing.assert_allclose(z, whole, atol=1e-6, err_msg=what)
    pictures = [
        client.ask("image", sample=A | {"chunks": [still | chunk, still, still]})
        for chunk in ({}, {"seed": 77}, {"angle": 90})
    ]
    assert not np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    # The variants keep the changed chunk of another seed only where it is theirs.
    assert client.ask("variants", sample=A | {"chunks": [{"seed": 77}, still, still]}).any()


def test_between_two_samples(client):
    a, b = (client.ask("image", sample=s) for s in (A, B))
    ends = {"from": A, "to": B}
    assert_same_picture(client.ask("image", **ends, at=0), a / 127.5 - 1)
    assert_same_picture(client.ask("image", **ends, at=1), b / 127.5 - 1)
    only_z = client.ask("image", **ends, at=1, what="z")
    assert_same_picture(only_z, client.ask("image", sample=B | {"class": 3}) / 127.5 - 1)
    only_class = client.ask("image", **ends, at=1, what="class")
    assert_same_picture(only_class, client.ask("image", sample=A | {"class": 7}) / 127.5 - 1)
    sheet = client.ask("variants", **ends)
    assert_same_picture(sheet[:16, :16], a / 127.5 - 1)
    assert_same_picture(sheet[-16:, -16:], b / 127.5 - 1)
    one = client.ask("image", **ends, at=4 / 11)
    assert_same_picture(sheet[16:32, :16], one / 127.5 - 1)


def test_attention_of_a_pixel(client, generator):
    maps = generator.attention(generator.sample_z(5, 1), np.array([3]))["attention_8"][0]
    for row, column in ((0, 0), (15, 0), (6, 11)):
        found = client.ask("attention", sample=A, layer="attention_8", row=row, column=column)
        query = row // 2, column // 2
        assert (tuple(found["query"]), found["queries"], found["side"]) == (query, 8, 4)
        expected = maps[query[0] * 8 + query[1]]
        np.testing.assert_allclose(found["values"], expected, rtol=1e-3, atol=1e-5)
    mixed = client.ask("attention", **{"from": A, "to": B, "at": 0.5}, row=1, column=1)
    assert sum(mixed["values"]) == pytest.approx(1, abs=1e-2)


def test_no_request_waits_for_the_compiler(client):
    def programs():
        jitted = forward._jitted(forward._between), latents._block_of_any_truncation
        return [program._cache_size() for program in jitted]

    before = programs()
    chunks = [{"seed": 3, "angle": 7}, {}, {}]
    for truncation, kind in ((None, "resample"), (0.123, "resample"), (0.456, "scale")):
        one = {"truncation": truncation, "truncation_kind": kind, "chunks": chunks, "class": 2}
        for request in ({"sample": one}, {"from": one, "to": A, "at": 0.2, "weights": "raw"}):
            for what in ("image", "variants", "latents.json"):
                client.ask(what, **request)
            client.ask("attention", **request, row=1, column=2)
    assert programs() == before


HUGE = int("9" * 400)


@pytest.mark.parametrize(
    ("what", "request_", "words"),
    [
        ("image", {"sample": {"class": 10}}, "class 10 does not exist: .* classes 0 to 9"),
        ("image", {"sample": {"class": -1}}, "class -1 does not exist"),
        ("image", {"sample": {"class": HUGE}}, r"class 9+\.\.\. does not exist"),
        ("image", {"sample": {"class": "sevn"}}, "class 'sevn'"),
        ("image", {"sample": {"class": "0-3"}}, 'class "0-3" means 4 classes; write one'),
        ("image", {"sample": {"class": True}}, "class is true; write an id or a name"),
        ("image", {"sample": {"class": None}}, "class is null"),
        ("image", {"sample": {"seed": 2**32}}, "seed is 4294967296; it must be an integer from -2"),
        ("image", {"sample": {"seed": -(2**31) - 1}}, "seed is -2147483649"),
        ("image", {"sample": {"seed": 0.5}}, "seed is 0.5"),
        ("image", {"sample": {"seed": "1"}}, 'seed is "1"'),
        ("image", {"sample": {"number": NUMBERS}}, "number is 1048576"),
        ("image", {"sample": {"truncation": 0}}, "truncation is 0; it must be a number from 0.001"),
        ("image", {"sample": {"truncation": HUGE}}, r"truncation is 9+\.\.\."),
        ("image", {"sample": {"truncation_kind": "scal"}}, r"\(did you mean 'scale'\?\)"),
        ("image", {"sample": {"chunks": [{}]}}, "there are 1 chunks; z of this model has 3"),
        ("image", {"sample": {"chunks": 7}}, "chunks are 7; write a list"),
        ("image", {"sample": {"chunks": [{"angle": 181}, {}, {}]}}, "angle of chunk 0 is 181"),
        ("image", {"sample": {"chunks": [{"sed": 1}, {}, {}]}}, "no \"sed\" .did you mean 'seed'"),
        ("image", {"sample": []}, r"sample is \[\]; it must be an object"),
        ("image", {"sample": {"sede": 1}}, "sample has no \"sede\" .did you mean 'seed'"),
        ("image", {"smaple": {}}, "the request has no \"smaple\" .did you mean 'sample'"),
        ("image", {}, "the request has no from: write sample, or from and to"),
        ("image", {"from": {}}, "the request has no to"),
        ("image", {"sample": {}, "at": 1}, "either sample or from and to; leave at out"),
        ("image", {"from": {}, "to": {}, "at": 1.5}, "at is 1.5; it must be a number from 0 to 1"),
        ("image", {"from": {}, "to": {}, "what": "all"}, "what is \"all\"; it must be both or z"),
        ("image", {"sample": {}, "weights": "ema"}, r"no weights \"ema\" \(did you mean 'EMA'"),
        ("image", {"sample": {}, "weights": ["raw"]}, "there are no weights"),
        ("image", {"sample": {}, "turn": -1}, "turn is -1"),
        ("attention", {"sample": {}}, "row is null; it must be an integer from 0 to 15"),
        ("attention", {"sample": {}, "row": 16, "column": 0}, "row is 16"),
        ("attention", {"sample": {}, "row": 0, "column": 0, "layer": "x"}, "no attention layer"),
        ("image", {"sample": {}, "layer": "x"}, "the request has no \"layer\""),
    ],
)  # fmt: skip
def test_requests_that_make_no_sense(client, what, request_, words):
    assert re.search(words, client.refused(what, **request_))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the request is no JSON"),
        (b"[1]", r"the request is \[1\]; it must be an object"),
        (b'{"sample": {"truncation": NaN}}', "holds NaN"),
        (b'{"sample": {"truncation": -Infinity}}', "holds -Infinity"),
        (b'{"sample": {"truncation": 1e999}}', "truncation is Infinity"),
        (b'{"sample": {"seed": ' + b"9" * 5000 + b"}}", "the request is no JSON"),
        (b"[" * 30_000, "the request is no JSON"),
        (b"\xff\xfe", "the request is no JSON"),
        (b'{"sample": {"class": "\\ud800"}}', "class"),
        (b'{"sample": {"class": "\\u0000\\n"}}', "class"),
    ],
)
def test_bodies_that_are_no_request(client, body, words):
    assert re.search(words, client.sentence(400, *client.send(path="/api/image", body=body)))


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"Host": "evil.example"}),  # a name that a stranger's DNS server turns into 127.0.0.1
        (403, {"Host": "127.0.0.1.evil.example:80"}),
        (403, {"Host": "127.0.0.1@evil.example"}),
        (403, {"Host": "192.168.1.7"}),
        (403, {"Host": ""}),
        (403, {"Host": "["}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://127.0.0.1:1"}),  # another server of this machine
        (403, {"Sec_Fetch_Site": "cross-site"}),
        (415, {"Content_Type": "text/plain"}),  # what a form of another page can send
        (413, {"Content_Length": "9999999"}),
        (200, {"Host": "localhost:9000"}),  # a forwarded port
        (200, {"Host": "[::1]:9000", "Origin": "http://[::1]:9000"}),
        (200, {"Sec_Fetch_Site": "same-origin"}),
    ],
)
def test_requests_of_other_pages(client, status, headers):
    answer = client.send(path="/api/image", body=b'{"sample": {}}', **headers)
    if status == 200:
        assert answer[0] == 200 and "access-control-allow-origin" not in answer[1]
    else:
        assert client.sentence(status, *answer)


def test_no_file_is_served(client):
    for path in ("/../setup.py", "/etc/passwd", "//etc/passwd", "/%2e%2e/setup.py", "/config.json"):
        assert "nothing is here" in client.sentence(404, *client.send("GET", path))
    client.sentence(405, *client.send("GET", "/api/image"))
    assert client.sentence(403, *client.send("GET", "/api/model", Host="evil.example"))


def test_of_the_requests_that_wait_the_newest_counts():
    done, running, go_on = [], threading.Event(), threading.Event()

    def first():
        running.set()
        assert go_on.wait(30)
        done.append("first")

    async def play():
        turns = explore_app.Turns()
        started = asyncio.create_task(turns.take(("page", "image"), 1, first))
        while not running.is_set():
            await asyncio.sleep(0.001)
        asked = [(("page", "image"), turn) for turn in (2, 3, 5, 4)]
        asked += [(("page", "variants"), 2), (("other", "image"), 1), (None, 0), (None, 0)]
        waiting = [
            asyncio.create_task(turns.take(*one, lambda one=one: done.append(one))) for one in asked
        ]
        await asyncio.sleep(0.01)
        go_on.set()
        found = await asyncio.gather(started, *waiting, return_exceptions=True)
        return [isinstance(one, explore_app.Stale) for one in found[1:]]

    assert asyncio.run(play()) == [True, True, False, True, False, False, False, False]
    assert done[:2] == ["first", (("page", "image"), 5)] and len(done) == 6


def test_a_stale_request_is_told_so(client):
    ask = {"sample": A, "page": "p"}
    client.ask("image", **ask, turn=7)
    assert "newer request" in client.refused("image", 409, **ask, turn=6)
    client.ask("variants", **ask, turn=6)


def test_weights_read_anew(run_copy):
    """A run that went on; and one whose checkpoints were deleted while the page is open."""
    checkpoints = run_copy / "checkpoints"
    shutil.move(checkpoints / "4", run_copy / "later")
    explorer = Explorer(run_copy)
    with served(explorer) as client:
        before = client.ask("image", sample=A)
        shutil.move(run_copy / "later", checkpoints / "4")
        assert client.ask("reload")["step"] == 4
        after = client.ask("image", sample=A)
        assert not np.array_equal(before, after)
        shutil.rmtree(checkpoints)
        assert re.search(
            "the page goes on with step 4, which is in memory", client.refused("reload")
        )
        shutil.rmtree(run_copy)
        assert "the page goes on with step 4" in client.refused("reload")
        np.testing.assert_array_equal(client.ask("image", sample=A), after)


@pytest.mark.full
def test_a_thousand_classes_and_raw_weights_alone(tmp_path):
    explorer = Explorer(write_model(tmp_path, networks=("g",), num_classes=1000))
    with served(explorer) as client:
        model = explorer.model()
        assert model["weights"] == ["raw"] and not model["attention"] and model["step"] is None
        client.ask("image", sample={"class": 999})
        assert "0 to 999" in client.refused("image", sample={"class": 1000})
        assert 'no weights "EMA": raw' in client.refused("image", weights="EMA", sample={})
        place = {"row": 0, "column": 0}
        assert "has no attention layer" in client.refused("attention", sample={}, **place)


def test_names_of_classes_in_a_model_without_chunks(tmp_path):
    """SAGAN: tables of gains and biases, z whole, latents of another distribution."""
    model = {"name": "sagan", "init": "xavier", "z_distribution": "bernoulli"}
    explorer = Explorer(write_model(tmp_path, names=NAMES, **model))
    assert explorer.model()["class_names"] == list(NAMES) and explorer.chunks == []
    assert not explorer.model()["truncates"]
    explorer.warm()
    with served(explorer) as client:
        by_name, by_id = (client.ask("image", sample={"class": c}) for c in ("猫", 3))
        np.testing.assert_array_equal(by_name, by_id)
        assert "did you mean 'Größe'" in client.refused("image", sample={"class": "Grösse"})
        assert "leave chunks out" in client.refused("image", sample={"chunks": [{}]})
        assert "bernoulli" in client.refused("image", sample={"truncation": 0.5})


@pytest.mark.full
def test_one_class(tmp_path):
    explorer = Explorer(write_model(tmp_path, num_classes=1, channels=3))
    with served(explorer) as client:
        assert client.ask("variants", **{"from": {"seed": 1}, "to": {"seed": 2}}).shape[-1] == 3
        assert "0 to 0" in client.refused("image", sample={"class": 1})


def test_a_start_that_the_page_could_not_ask_for(trained):
    with pytest.raises(UserError, match="truncation is 1e-05; it must be a number from 0.001"):
        Explorer(trained, start={"truncation": 1e-5})
