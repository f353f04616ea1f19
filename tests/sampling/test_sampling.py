"""Sampling: latents, truncation, batch-norm modes, model directories, files of samples."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image

import biggan_jax
from biggan_jax import cli, models
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.models import latents
from biggan_jax.pictures import grids
from biggan_jax.sampling import classes as classes_lib
from biggan_jax.sampling import files as sample_files
from biggan_jax.sampling import forward, load
from biggan_jax.sampling import latents as sample_latents
from biggan_jax.sampling.generator import LoadedGenerator
from biggan_jax.storage.weights import save_weights
from tests import peer, runs

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="module")
def state(trained):
    return runs.load_state(trained)[0]


@pytest.fixture(scope="module")
def generator(trained, cache_dir):
    with runs.cached_compiles(cache_dir):
        yield biggan_jax.load_generator(trained)


def inputs(g, n, seed=0):
    return g.sample_z(seed, n), np.arange(n, dtype=np.int32) % g.num_classes


def apply(g, variables, z, labels):
    """The same forward by hand."""
    module, _ = models.build(g.config.model)
    return np.asarray(module.apply(variables, jnp.asarray(z), jnp.asarray(labels), train=False))


def test_images_of_the_average_and_of_the_raw_weights(trained, generator, state):
    assert (generator.dim_z, generator.num_classes, generator.resolution) == (12, 10, 16)
    assert generator.step == 4
    z, labels = inputs(generator, 10)
    before = z.copy()
    images = generator(z, labels)
    np.testing.assert_array_equal(z, before)  # never changed
    assert images.dtype == np.float32 and images.shape == (10, 16, 16, 1)
    assert np.abs(images).max() <= 1
    np.testing.assert_allclose(images, apply(generator, state.ema.variables, z, labels), atol=1e-5)
    raw = load.load_generator(trained, ema=False)(z, labels)
    by_hand = apply(generator, state.generator.variables, z, labels)
    np.testing.assert_allclose(raw, by_hand, atol=1e-5)
    assert np.abs(raw - images).max() > 1e-3


def test_latents_of_a_sample_depend_on_its_number_alone(generator):
    z = generator.sample_z(0, 600)
    for n in (1, 64, 255, 257, 599):
        np.testing.assert_array_equal(generator.sample_z(0, n), z[:n])
    np.testing.assert_array_equal(generator.sample_z(0, 270, first=250), z[250:520])
    truncated = generator.sample_z(0, 600, 0.5)
    np.testing.assert_array_equal(generator.sample_z(0, 300, 0.5), truncated[:300])


@pytest.mark.parametrize(
    ("distribution", "truncation", "kind"),
    [
        *[("normal", t, k) for t, k in ((None, "resample"), (0.5, "resample"), (0.5, "scale"))],
        ("censored_normal", 1.0, "resample"),
        ("normal_bernoulli_concat", None, "resample"),
    ],
)
def test_latents_of_a_seed_stay_what_they_were(distribution, truncation, kind):
    """By their definition, a program of its own for every call; those of the first release."""

    def one(number):
        first, redraw = jax.random.split(jax.random.fold_in(jax.random.key(7), number))
        z = latents.sample(first, (12,), distribution=distribution)
        if truncation is None:
            return z
        return latents.truncate(redraw, z, truncation, distribution, kind)

    expected = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(300)))
    shape = {"truncation": truncation, "kind": kind, "distribution": distribution}
    z = sample_latents.draw(7, range(300), 12, **shape)
    np.testing.assert_array_equal(z, expected)


def test_images_of_a_sample_do_not_depend_on_its_companions(generator):
    """To rounding: that of a product depends on the row that an example has in its batch."""
    z, labels = inputs(generator, 100)
    images, maps = generator(z, labels), generator.attention(z, labels)["attention_8"]
    np.testing.assert_array_equal(generator(z, labels), images)  # the same call, the same bits
    for i in (0, 63, 64, 99):
        alone = z[i : i + 1], labels[i : i + 1]
        np.testing.assert_allclose(generator(*alone)[0], images[i], atol=1e-5)
        np.testing.assert_allclose(
            generator.attention(*alone)["attention_8"][0], maps[i], atol=1e-5
        )
    assert len(np.unique(images.reshape(100, -1), axis=0)) == 100


def test_images_of_half_precision_depend_little_on_their_companions(trained, generator):
    config = generator.config.copy_and_resolve_references()
    config.compute_dtype = "bfloat16"
    half = LoadedGenerator(config, generator._variables)
    z, labels = inputs(half, 70)
    images = half(z, labels)
    np.testing.assert_allclose(half(z[66:68], labels[66:68]), images[66:68], atol=0.1)
    assert 1e-5 < np.abs(images - generator(z, labels)).max() < 0.2


def test_one_device_and_eight_agree(generator, state):
    """The batch is split over all local devices, the weights lie on each of them once."""
    assert len(jax.local_devices()) == 8
    for leaf in jax.tree.leaves(generator._variables):
        assert leaf.sharding.is_fully_replicated and len(leaf.sharding.device_set) == 8
    z, labels = inputs(generator, 20)
    out, _ = generator._forward(np.resize(z, (64, 12)), np.resize(labels, 64))
    assert {s.data.shape[0] for s in out.addressable_shards} == {8}
    np.testing.assert_allclose(
        generator(z, labels), apply(generator, state.ema.variables, z, labels), atol=1e-5
    )
    # Neither does a number of devices that does not divide the samples change batch statistics.
    assert [len(rows) for _, rows, _ in generator._batches(z, labels, 6)] == [8, 8, 8]


def test_programs_are_compiled_once(trained, generator, monkeypatch):
    """For all networks of an architecture, all calls, numbers of samples and seeds."""
    z, labels = inputs(generator, 10)
    generator(z, labels), generator.sample_z(0, 10, 0.25)
    program = forward._jitted(forward.apply)
    programs = program._cache_size(), sample_latents._block._cache_size()
    monkeypatch.setattr(jax, "device_put", counting := Counting(jax.device_put))
    other = generator.replace(jax.tree.map(np.asarray, generator._variables))
    counting.bytes = 0
    for g in (generator, other):
        g(z[:3], labels[:3])
        for seed, n in ((1, 3), (2, 300), (-5, 1)):
            g.sample_z(seed, n, 0.25)
    assert counting.bytes <= 4 * 64 * (12 + 1) * 2  # no weights once more
    raw = load.load_generator(trained, ema=False)
    raw(z, labels)
    assert (program._cache_size(), sample_latents._block._cache_size()) == programs
    # Training forwards feed their own spectral vectors to the next one.
    for g in (generator.replace(generator._variables), raw):
        g.set_bn_mode("standing", batches=3, batch_size=8)
        g(z, labels)
    assert program._cache_size() == programs[0] + 1


class Counting:
    """A function that counts the bytes of its first argument."""

    def __init__(self, function):
        self.function, self.bytes = function, 0

    def __call__(self, tree, *args):
        self.bytes += sum(np.asarray(x).nbytes for x in jax.tree.leaves(tree))
        return self.function(tree, *args)


def test_attention_maps(generator):
    maps = generator.attention(*inputs(generator, 70))
    assert maps.keys() == {"attention_8"}  # 8 x 8 queries, 4 x 4 keys
    assert maps["attention_8"].shape == (70, 64, 16)
    np.testing.assert_allclose(maps["attention_8"].sum(-1), 1, atol=1e-5)
    assert (maps["attention_8"] >= 0).all()


def test_no_samples(generator):
    z = generator.sample_z(0, 0)
    assert z.shape == (0, 12)
    assert generator(z, np.zeros(0, np.int32)).shape == (0, 16, 16, 1)


@pytest.mark.parametrize("truncation", [0.3, 1.0])
def test_truncation_redraws_what_lies_outside(generator, truncation):
    free, z = generator.sample_z(3, 2000), generator.sample_z(3, 2000, truncation)
    within = np.abs(free) <= truncation
    assert np.abs(z).max() <= truncation
    np.testing.assert_allclose(z[within], free[within], rtol=1e-6)  # by two compiled programs
    assert (z[~within] != free[~within]).all()
    truncated = scipy.stats.truncnorm(-truncation, truncation)
    assert scipy.stats.kstest(z.ravel(), truncated.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(z[~within], truncated.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(free.ravel(), "norm").pvalue > 1e-3


def test_truncation_by_scale(generator):
    z = generator.sample_z(3, 2000, 0.5, "scale")
    assert np.abs(z).max() <= 1.0
    assert scipy.stats.kstest(z.ravel() / 0.5, scipy.stats.truncnorm(-2, 2).cdf).pvalue > 1e-3


def test_seeds(generator):
    assert (generator.sample_z(1, 5) != generator.sample_z(2, 5)).all()
    assert len(np.unique(generator.sample_z(0, 1000))) > 11_900  # no latent twice
    for seed in (-(2**31), 2**32 - 1):
        assert np.isfinite(generator.sample_z(seed, 1)).all()
    # A sign changes the name of a seed, not what it draws.
    np.testing.assert_array_equal(generator.sample_z(-1, 3), generator.sample_z(2**32 - 1, 3))
    for seed in (2**32, -(2**31) - 1, 0.5):
        for call in (generator.sample_z, lambda seed, n: generator.set_bn_mode("batch", seed=seed)):
            with pytest.raises(UserError, match=f"seed is {seed}; it must be an integer"):
                call(seed, 1)


def test_standing_statistics_of_every_seed(generator):
    z, labels = inputs(generator, 4)
    images = []
    for seed in (-1, 0, 2**32 - 1):
        g = generator.replace(generator._variables)
        g.set_bn_mode("standing", seed=seed, batches=2, batch_size=8)
        images.append(g(z, labels))
    np.testing.assert_array_equal(images[0], images[2])
    assert np.abs(images[0] - images[1]).max() > 1e-4


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda g, z, y: g(z[:, :5], y), r"z has shape \(4, 5\).*\[N, 12\]"),
        (lambda g, z, y: g(z[0], y), r"z has shape \(12,\)"),
        (lambda g, z, y: g(z, y[:2]), r"labels have shape \(2,\).*\[4\]"),
        (lambda g, z, y: g(z, y[:, None]), r"labels have shape \(4, 1\)"),
        (lambda g, z, y: g(z, y + 7), "class 10 does not exist.*0 to 9"),
        (lambda g, z, y: g(z, y - 1), "class -1 does not exist"),
        (lambda g, z, y: g(z, y / 2), "labels are float64"),
        (lambda g, z, y: g.attention(z, y + 9), "class 10 does not exist"),
        (lambda g, z, y: g.sample_z(0, 1, 0.0), "truncation is 0.0; it must be above 0"),
        (lambda g, z, y: g.sample_z(0, 1, -1), "truncation is -1"),
        (lambda g, z, y: g.sample_z(0, 1, 1.0, "clip"), "'clip'.*resample or scale"),
        (lambda g, z, y: g.set_bn_mode("best"), "'best'.*running, batch, standing"),
    ],
)
def test_bad_arguments(generator, call, words):
    z, labels = inputs(generator, 4)
    with pytest.raises(UserError, match=words):
        call(generator, z, labels)


def standing_by_hand(g, variables, z, labels):
    """The mean of the batches' own moments; a momentum of 0 makes the running ones just these."""
    config = g.config.copy_and_resolve_references()
    config.model.bn_momentum = 0.0
    module, _ = models.build(config.model)
    forward = jax.jit(
        lambda v, z, y: module.apply(v, z, y, train=True, mutable=["spectral", "batch_stats"])[1]
    )
    stats = []
    for part in np.split(np.arange(len(z)), 16):
        new = forward(variables, z[part], labels[part])
        variables = variables | {"spectral": new["spectral"]}
        stats.append(new["batch_stats"])

    def biased(path, var):  # the running variance is the unbiased one
        names = [entry.key for entry in path]
        block = int(names[0][-1]) if names[0] != "bn_out" else 2
        side = 4 * 2 ** (block + ("bn2" in names))
        count = 64 * side * side
        return var * ((count - 1) / count) if names[-1] == "var" else var

    mean = jax.tree.map(lambda *x: sum(x) / 16, *stats)
    return jax.tree_util.tree_map_with_path(biased, mean)


@pytest.mark.full
def test_standing_statistics(trained, generator, state):
    standing = load.load_generator(trained, bn_mode="standing", standing_truncation=0.5)
    variables = state.ema.variables
    z = generator.sample_z(0, 16 * 64, 0.5)
    labels = np.random.default_rng(0).integers(0, 10, len(z), np.int32)
    by_hand = variables | {"batch_stats": standing_by_hand(generator, variables, z, labels)}
    z, labels = inputs(generator, 20)
    images = standing(z, labels)
    np.testing.assert_allclose(images, apply(generator, by_hand, z, labels), atol=2e-4)
    assert np.abs(images - generator(z, labels)).max() > 1e-2
    other = load.load_generator(trained, bn_mode="standing")(z, labels)
    assert np.abs(images - other).max() > 1e-3  # of latents that are not truncated
    standing.set_bn_mode("running")
    np.testing.assert_array_equal(standing(z, labels), generator(z, labels))


def test_standing_statistics_of_the_peer():
    """BigGAN-PyTorch with `--mybn --accumulate_stats`: a training forward, then three standing."""
    f = np.load(FIXTURES / "f01d_biggan32_G_mybn_standing.npz")
    config = default_config()
    config.model.update(
        resolution=32, ch=4, num_classes=10, dim_z=32, shared_dim=16, g_attention=(),
        d_attention=(), bn_variance="biased",
    )  # fmt: skip

    def variables(prefix):
        # `mybn` keeps its statistics in a module of its own.
        arrays = {
            k.replace(".bn.stored_", ".stored_"): v
            for k, v in peer.split(f, prefix).items()
            if not k.endswith("accumulation_counter")
        }
        return peer.variables(arrays, {}, bottom=16)

    nhwc = lambda x: x.transpose(0, 2, 3, 1)
    same = lambda a, b: jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-5), dict(a), b
    )
    g = LoadedGenerator(config, variables("sd"))
    z, labels = f["in/z"], f["in/y"].astype(np.int32)
    collections = ("spectral", "batch_stats")
    out, after = forward.call(
        g._generator, variables("sd"), z, labels, train=True, collections=collections
    )
    np.testing.assert_allclose(out, nhwc(f["train/out"]), atol=2e-5)
    expected = variables("train/after")
    same(after["batch_stats"], expected["batch_stats"])
    same(after["spectral"], expected["spectral"])

    # The peer went on from there.
    g = LoadedGenerator(config, variables("sd") | {"spectral": expected["spectral"]})
    g.set_standing(zip(f["standing/z"], f["standing/y"], strict=True))
    expected = variables("standing/after")
    # The peer keeps the sum of its three forwards and divides by the counter when it is used.
    same(g._variables["batch_stats"], jax.tree.map(lambda x: x / 3, expected["batch_stats"]))
    same(g._variables["spectral"], expected["spectral"])
    np.testing.assert_allclose(g(z, labels), nhwc(f["standing/eval_out"]), atol=2e-5)


def test_standing_settings(trained, tmp_path, generator):
    """`biggan sample` hands them through; the latents are truncated as those of the samples."""

    def sample(*options):
        argv = ["sample", f"--from={trained}", f"--out={tmp_path / 'x.npz'}", "--per-class=1",
                "--bn-mode=standing", "--standing-batches=2", *options]  # fmt: skip
        assert cli.main(argv) == 0
        return np.load(tmp_path / "x.npz")["images"]

    g = load.load_generator(trained)

    def expected(z_truncation, batches=2, **settings):
        g.set_bn_mode("standing", batches=batches, **settings)
        z = g.sample_z(0, 10, z_truncation)
        return grids.to_uint8(g(z, np.arange(10, dtype=np.int32)))

    np.testing.assert_array_equal(
        sample("--truncation=0.5", "--standing-batch-size=8"),
        expected(0.5, truncation=0.5, batch_size=8),
    )
    np.testing.assert_array_equal(
        sample("--truncation=0.5", "--standing-truncation=2", "--standing-batch-size=8"),
        expected(0.5, truncation=2.0, batch_size=8),
    )
    assert (expected(0.5, batch_size=8) != expected(0.5, truncation=0.5, batch_size=8)).any()
    assert (expected(None, batch_size=8) != expected(None, batches=3, batch_size=8)).any()
    for options, words in (
        ({"batches": 0}, "--standing-batches to 1"),
        ({"batch_size": 1}, "--standing-batch-size to 2"),
    ):
        with pytest.raises(UserError, match=words):
            generator.set_bn_mode("standing", **options)


def test_batch_statistics(trained, generator):
    batch = load.load_generator(trained, bn_mode="batch")
    z, labels = inputs(batch, 64)
    images = batch(z, labels)
    assert np.abs(images - generator(z, labels)).max() > 1e-2
    np.testing.assert_array_equal(images, batch(z, labels))
    # One whole batch: another order has the same statistics, and each image stays with its z.
    order = np.random.default_rng(1).permutation(64)
    np.testing.assert_allclose(batch(z[order], labels[order]), images[order], atol=1e-4)
    maps = batch.attention(z, labels)["attention_8"]
    again = batch.attention(z[order], labels[order])["attention_8"]
    np.testing.assert_allclose(again, maps[order], atol=1e-4)


def test_discriminator(trained, state):
    d = biggan_jax.load_discriminator(trained)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (70, 16, 16, 1)).astype(np.float32)
    labels = np.arange(70, dtype=np.int32) % 10
    logits = d(images, labels)
    assert logits.shape == (70,) and logits.dtype == np.float32
    _, module = models.build(d.config.model)
    variables = {name: getattr(state.discriminator, name) for name in ("params", "spectral")}
    np.testing.assert_allclose(logits, module.apply(variables, images, labels), atol=1e-4)
    assert d(images[:0], labels[:0]).shape == (0,)
    with pytest.raises(UserError, match=r"images have shape \(70, 16, 16\)"):
        d(images[..., 0], labels)
    with pytest.raises(UserError, match=r"labels have shape \(69,\)"):
        d(images, labels[1:])
    with pytest.raises(UserError, match="class 10 does not exist"):
        d(images, labels + 1)


def test_model_directory(trained, generator, state, tmp_path, capsys):
    """config.json with the model section alone, and any of g, g_ema and d."""
    model = json.loads((trained / "config.json").read_text())["model"]
    (tmp_path / "config.json").write_text(json.dumps({"model": model}))
    z, labels = inputs(generator, 5)
    save_weights(tmp_path, "g", state.generator.variables)
    raw = apply(generator, state.generator.variables, z, labels)
    g = load.load_generator(tmp_path)
    assert f"{tmp_path} holds no averaged weights: using g" in capsys.readouterr().err
    np.testing.assert_allclose(g(z, labels), raw, atol=1e-5)
    assert g.step is None
    with pytest.raises(UserError, match="no weights 'd'.*it has g"):
        load.load_discriminator(tmp_path)
    save_weights(tmp_path, "g_ema", state.ema.variables)
    np.testing.assert_array_equal(load.load_generator(tmp_path)(z, labels), generator(z, labels))
    raw_again = load.load_generator(tmp_path, ema=False)(z, labels)
    np.testing.assert_allclose(raw_again, raw, atol=1e-5)
    assert capsys.readouterr().err == ""
    save_weights(tmp_path, "d", state.discriminator.variables)
    images = generator(z, labels)
    here, there = (load.load_discriminator(d)(images, labels) for d in (tmp_path, trained))
    np.testing.assert_array_equal(here, there)
    shutil.rmtree(tmp_path / "weights" / "g")
    with pytest.raises(UserError, match="no weights 'g'.*it has d, g_ema"):
        load.load_generator(tmp_path, ema=False)


def test_npz_file(trained, generator, tmp_path):
    out = tmp_path / "new" / "x.npz"
    result = sample_files.write(
        trained, out, classes="0,3,5-6", per_class=3, truncation=0.7, seed=4
    )
    assert result["count"] == 12 and result["out"] == str(out) and result["seconds"] > 0
    assert [p.name for p in out.parent.iterdir()] == ["x.npz"]
    with np.load(out) as file:
        assert set(file) == {"images", "labels", "z"}
        images, labels, z = file["images"], file["labels"], file["z"]
    assert images.dtype == np.uint8 and labels.dtype == np.int32 and z.dtype == np.float32
    assert labels.tolist() == [0, 0, 0, 3, 3, 3, 5, 5, 5, 6, 6, 6]
    np.testing.assert_array_equal(z, generator.sample_z(4, 12, 0.7))
    np.testing.assert_array_equal(images, grids.to_uint8(generator(z, labels)))


def test_interpolation_and_picture(trained, tmp_path):
    sample_files.write(trained, tmp_path / "x.npz", classes="2,7", per_class=5, interpolate=True)
    with np.load(tmp_path / "x.npz") as file:
        labels, z = file["labels"], file["z"].reshape(2, 5, -1)
    assert labels.tolist() == [2] * 5 + [7] * 5
    ends = load.load_generator(trained).sample_z(0, 4).reshape(2, 2, -1)
    np.testing.assert_allclose(z[:, [0, -1]], ends, atol=1e-6)
    sample_files.write(trained, tmp_path / "x.png", classes="2,7", per_class=5)
    with Image.open(tmp_path / "x.png") as picture:
        assert (
            picture.height == 2 * 50 + 2 and picture.width > 5 * 50 + 2
        )  # class names at the left


def test_great_circle_keeps_the_norm():
    a, b = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    b *= np.linalg.norm(a) / np.linalg.norm(b)
    path = sample_files.great_circle(a, b, 9)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linalg.norm(a), rtol=1e-5)
    angles = [np.dot(p, q) for p, q in zip(path[1:], path, strict=False)]
    np.testing.assert_allclose(angles, angles[0], rtol=1e-5)  # even steps
    np.testing.assert_allclose(sample_files.great_circle(a, a, 3), [a] * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "classes", "picture", "expected"),
    [
        (None, 3, True, [0, 1, 2]),
        (None, 1, True, [0]),
        (None, 1000, True, [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]),
        (None, 12, False, list(range(12))),
        ("4", 10, True, [4]),
        (" 0, 3-5 ,3", 10, True, [0, 3, 4, 5, 3]),
    ],
)
def test_classes(text, classes, picture, expected):
    got = classes_lib.parse_classes(text, classes, picture=picture)
    assert got.tolist() == expected and got.dtype == np.int32


def test_truncation_needs_no_loop():
    """Far in the tail repeated redrawing would take for ever."""
    z = latents.truncate(jax.random.key(0), jnp.ones((1000,)), 1e-4)
    assert 0 < jnp.abs(z).max() <= 1e-4
