"""Every command of README and docs that can run here is run, page by page, in order, shortened.

What a page takes for granted (a trained run, folders of images, weights) is made first; `REPLACED`
and `SHORTER` are all that is changed in a command, and `NOT_HERE` all that is not run. Blocks of
Python and docs/gallery.py run as well (docs/tour.ipynb: test_tour.py).
"""

import functools
import importlib.util
import io
import json
import re
import shutil
import sys
import urllib.parse
import webbrowser
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from biggan_jax import cli, load_discriminator, load_generator
from biggan_jax.data import holdout, idx
from biggan_jax.evaluation import inputs
from biggan_jax.metrics import classifier
from biggan_jax.metrics.fitting import Recipe
from biggan_jax.pictures import grids
from biggan_jax.planning import machine, recommend
from biggan_jax.sampling import explore_request as requests
from biggan_jax.sampling import explore_server
from biggan_jax.sampling.explore import Explorer
from tests import pages, pytorch_files, runs
from tests.interop import numpy_peer
from tests.page_runs import (
    NOT_HERE,
    OTHERS,
    SHORTER,
    WALKED,
    python_blocks,
    reason_not_here,
    shortened,
    whole,
    workdir_of,
)
from tests.sampling import explored

FASHION = "/usr/share/datasets/fashion-mnist"  # which two blocks of Python read


@pytest.fixture(scope="module")
def quick():
    """Classifiers are fitted in a few steps, and `init` takes a step's time for known."""
    recipe = Recipe(max_images=640, batch_size=64, holdout=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "cached", functools.partial(classifier.cached, recipe=recipe))
        patch.setattr(recommend, "measured", lambda config: (0.2, 10.0))
        patch.setattr(machine, "flops_per_second", lambda *args: 2e11)
        # `explore` ends as soon as it serves its page, and opens no browser.
        patch.setattr(explore_server.Server, "wait", lambda *args: False)
        patch.setattr(webbrowser, "open", lambda address: True)
        yield


@pytest.fixture(scope="module")
def prepared(quick, tmp_path_factory, cache_dir) -> Path:
    """A folder with all that the pages take for granted; a page works in a copy."""
    root = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / "pets" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
            Image.fromarray(pixels).save(root / "pets" / name / f"{i}.png")
    shutil.copy(root / "pets" / "cat" / "0.png", root / "photo.png")
    with zipfile.ZipFile(root / "pets.zip", "w") as file:
        for path in sorted((root / "pets").rglob("*.png")):
            file.write(path, Path("pets", "train", *path.parts[-2:]))
    extra = ("eval_every_steps=4", "eval_samples=80", "eval_features=classifier")
    more = ("ema.profiles=0.05", "monitor_every_steps=2", "model.d_attention=(8,)", "report=True")
    told = [f"--config.{setting}" for setting in (*extra, *more, "data.holdout=0.2")]
    with runs.cached_compiles(cache_dir):
        assert runs.train(root / "runs" / "digits", *told) == 0
    for name in ("fashion_attention", "fashion", "swept/seed=0", "swept/seed=1"):
        shutil.copytree(root / "runs" / "digits", root / "runs" / name)
    (root / "docs" / "gallery").mkdir(parents=True)
    for file, fixture in (("G", "f01_biggan32_G_shared_hier"), ("D", "f01_biggan32_D")):
        f, weights = pytorch_files.open_fixture(fixture)
        pytorch_files.save(root / "weights" / "BigGAN_I128" / file, weights)
        recorded = numpy_peer.Peer(weights)
        if file == "G":
            recorded.generator(f["in/z"], f["in/y"])
            recorded.save(root / "g.npz", z=f["in/z"], labels=f["in/y"])
        else:
            recorded.discriminator(f["in/x"], f["in/y"])
            recorded.save(root / "d.npz", images=f["in/x"], labels=f["in/y"])
    for folder in ("configs", "launch"):
        (root / folder).symlink_to(runs.ROOT / folder)
    return root


@pytest.mark.parametrize("page", WALKED)
def test_every_command_has_a_place(page):
    """It is run by `test_page`, or a table says why not."""
    unknown = []
    for command in whole(page):
        try:
            reason_not_here(command)
        except KeyError:
            unknown.append(f"{command.where}: {' '.join(command.words)}")
    assert not unknown, "neither run nor in OTHERS"


@pytest.fixture
def folder(prepared, tmp_path, monkeypatch, cache_dir) -> Iterator[Path]:
    """A copy of `prepared`, in which the commands run."""
    root = Path(shutil.copytree(prepared, tmp_path / "page", symlinks=True))
    monkeypatch.chdir(root)
    for name, value in runs.environment(cache_dir).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    yield root
    jax.clear_caches()  # the programs of a page take more than a gigabyte


@pytest.mark.full
@pytest.mark.parametrize("page", WALKED)
def test_page(page, folder, capsys):
    failed = []
    for command in whole(page):
        if reason_not_here(command) is not None:
            continue
        words = shortened(command)
        if page == "docs/gallery.md" and words[0] == "look":
            continue  # the page's script makes them
        if words[0] == "train" and "--fork" not in words:  # the page makes it, as if it were new
            shutil.rmtree(workdir_of(words), ignore_errors=True)
        run = cli.main if command.program == "biggan" else pages.sweep_script().main
        code = run(words)
        said = capsys.readouterr()
        if code:
            failed.append(f"{command.where}: {' '.join(words)}: {code}: {said.err[-400:]}")
        for result in folder.glob("runs/digits/report/evaluation.json"):  # for --compare
            for name in ("a.json", "b.json"):
                shutil.copy(result, name)
    assert not failed, "\n\n".join(failed)


@pytest.mark.full
@pytest.mark.parametrize("page", [page for page in WALKED if python_blocks(page)])
def test_python_of_a_page(page, folder):
    """What a block takes from the words around it is given."""
    g = load_generator("runs/digits")
    z, labels = g.sample_z(0, 3), [1, 2, 3]
    given = {"np": np, "z": z, "labels": labels, "images": g(z, labels), "DIR": "runs/digits"}
    given |= {"load_generator": load_generator, "load_discriminator": load_discriminator}
    explorer = Explorer("runs/fashion")
    saved = explorer.latents(requests.Shown("EMA", requests.Point(2, seed=7)))
    np.savez("sample.npz", **saved)
    for block in python_blocks(page):
        if FASHION in block.text and not Path(FASHION).is_dir():
            continue
        if page == "docs/import.md":  # tests/interop/test_verify.py records with it
            compile(block.text, block.where, "exec")
            continue
        names = dict(given)
        exec(compile(block.text, block.where, "exec"), names)
        if page == "README.md":
            assert names["images"].shape == (10, 16, 16, 1) and names["logits"].shape == (10,)
        elif page == "docs/explore.md":
            np.testing.assert_array_equal(grids.to_uint8(names["image"]), saved["images"][0])
        elif page == "docs/attention.md":
            assert len(next(iter(names["maps"].values()))) == len(z)
        elif page == "docs/evaluation.md":  # of `evaluate`'s images, uint8
            pixels = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
            np.testing.assert_allclose(names["embed"](pixels)[:, 0], [5.5 / 255, 17.5 / 255])
        elif page == "docs/recipes.md":  # "50 training images of each class"
            found = [len(list(Path("fashion_500", str(c)).iterdir())) for c in range(10)]
            held_out = holdout.of_indices(sum(found), 0.5)
            assert [sum(~part) for part in np.split(held_out, np.cumsum(found)[:-1])] == [50] * 10
        else:
            assert page == "docs/stability.md"
            assert len(list(Path("fashion_1000").rglob("*.png"))) == 1000


def name_classes(run: Path) -> None:
    """Gives the classes of a run the names of Fashion-MNIST's."""
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"class_names": idx.CLASS_NAMES}))


@pytest.mark.full
def test_the_request_of_a_script(folder):
    """What `curl` sends on the page of `explore`."""
    (words,) = (c.words for c in pages.commands("docs/explore.md") if c.program == "curl")
    name_classes(folder / "runs" / "fashion")
    explorer = Explorer("runs/fashion")
    with explored.served(explorer) as client:
        path = urllib.parse.urlsplit(words[-1]).path
        body = words[words.index("-d") + 1]
        status, headers, picture = client.send(path=path, body=body.encode())
    assert status == 200 and headers["content-type"] == "image/png"
    point = requests.Point(idx.CLASS_NAMES.index("Bag"), seed=7, truncation=0.8)
    shown = np.asarray(Image.open(io.BytesIO(picture)))[..., None]
    np.testing.assert_array_equal(shown, explorer.image(requests.Shown("EMA", point)))


@pytest.mark.full
def test_the_script_of_the_gallery(folder, monkeypatch, capsys):
    """It reads the page beside it, and makes every picture of it from runs that are given."""
    for name in ("gallery.md", "gallery.py"):
        shutil.copy(runs.ROOT / "docs" / name, folder / "docs")
    shutil.copytree(folder / "runs" / "digits", folder / "runs" / "watched")
    name_classes(folder / "runs" / "fashion")
    spec = importlib.util.spec_from_file_location("gallery", folder / "docs" / "gallery.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["gallery.py", str(folder / "runs")])
    assert script.main() == 0, capsys.readouterr().err[-400:]
    shown = re.findall(r"\]\((gallery/[^)]+)\)", (folder / "docs" / "gallery.md").read_text())
    assert len(shown) > 10 and all((folder / "docs" / path).stat().st_size for path in shown)


@pytest.mark.full
def test_every_reason_is_needed():
    """A pattern that no page has any more leaves the tables."""
    found = [command for page in WALKED for command in whole(page)]
    texts = [" ".join((command.program, *command.words[1:])) for command in found]
    for what in (*NOT_HERE, *SHORTER):
        assert any(re.search(what, text) for text in texts), what
    assert set(OTHERS) <= {command.words[0] for command in found}
