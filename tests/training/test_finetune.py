"""Fine-tuning: what a run takes over from another, what it says of it, and frozen layers of D."""

import functools
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.config import default_config
from biggan_jax.errors import UserError
from biggan_jax.models import stages
from biggan_jax.parallel import sharding
from biggan_jax.storage import checkpoint
from biggan_jax.storage.weights import save_weights
from biggan_jax.training import build as build_lib
from biggan_jax.training import finetune, optimizers, transfer
from biggan_jax.training import state as state_lib
from tests import runs
from tests.models.test_biggan import section

# One model for many tests: it is compiled once.
OTHER = (
    "--config.model.resolution=32",
    "--config.model.dim_z=16",  # the chunks stay as long as they are
    "--config.model.num_classes=3",
    "--config.model.z_distribution=bernoulli",
    "--config.model.init=normal",
)


@pytest.fixture(scope="module")
def source(trained):
    return runs.load_state(trained)[0]


def start(directory, *overrides):
    """(fresh state, its table, the bound step) of a run with init_from."""
    config = runs.tiny_config(f"--config.init_from={directory}", *overrides)
    mesh = sharding.make_mesh((1,))
    train_step = build_lib.train_step(config, mesh)
    lines = []
    return finetune.create(config, train_step, lines.append), lines, train_step


def flat(tree):
    """{path: array}."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def assert_equal(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_differ(a, b):
    assert any((x != y).any() for x, y in zip(flat(a).values(), flat(b).values(), strict=True))


def model_directory(trained, path, **weights):
    """A directory like an imported model's, with these weights."""
    path.mkdir()
    saved = json.loads((trained / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({"model": saved["model"]}))
    for name, tree in weights.items():
        save_weights(path, name, {k: v for k, v in tree.items() if v})
    return path


def row(lines, player, module):
    """{kind: count} of a line of the table."""
    (line,) = (x for x in lines if re.match(rf"  {player} +{module}( |$)", x))
    found = re.findall(r"(kept|averaged|new|dropped) ([\d,]+)", line)
    return {kind: int(count.replace(",", "")) for kind, count in found}


def test_the_same_model_is_taken_over_whole(trained, source):
    state, lines, train_step = start(trained)
    for name in ("generator", "discriminator", "ema"):
        assert_equal(getattr(state, name).variables, getattr(source, name).variables)
    assert_differ(source.generator.params, source.ema.params)
    assert state.step == 0
    assert_equal(state.generator.opt_state, train_step.g_optimizer.init(source.generator.params))
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.replace(key=state.step))]
    assert len(set(buffers)) == len(buffers) - 1  # the step stands there twice
    size = sum(x.size for x in jax.tree.leaves(source.generator.params))
    assert row(lines, "generator", "total") == {"kept": size}
    assert lines[0] == f"starting from {trained} after step 4; parameters:"
    assert not any("note" in line for line in lines)
    modules = [line.split()[1] for line in lines if line.startswith("  generator")]
    assert modules == ["shared", "linear", "block_0", "attention_8", "block_1", "bn_out", "rgb",
                       "total"]  # fmt: skip


@pytest.mark.full
def test_another_step_than_the_newest(run_copy):
    """DIR@STEP, also where the name of DIR holds an @."""
    run = run_copy.rename(run_copy.with_name("a@2"))
    config = runs.tiny_config("--config.finetune.keep_optimizer")
    for text, step in ((run, 4), (f"{run}@4", 4), (f"{run}@2", 2)):
        config.init_from = str(text)
        source = finetune.read(config, sharding.make_mesh((1,)))
        expected = runs.load_state(run, step)[0]
        assert source.step == step and source.optimizers
        assert_equal(source.weights["ema"], expected.ema.variables)
    for text, words in (
        (f"{run}@3", f"--config.init_from={run}@3: no checkpoint 3 in .*: it has 4, 2$"),
        (f"{run}@best", "has no best state"),
        (f"{run}@new", "no folder .*'new' is no step"),
    ):
        config.init_from = text
        with pytest.raises(UserError, match=words):
            finetune.read(config, sharding.make_mesh((1,)))


@pytest.mark.parametrize("mode", ["fresh", pytest.param("mean", marks=pytest.mark.full)])
def test_other_classes(trained, source, mode):
    """10 classes to 3: G's shared embedding and D's projection have other rows."""
    state, lines, train_step = start(trained, *OTHER, f"--config.finetune.new_classes={mode}")
    anew = state_lib.create(train_step.init, 0, train_step.mesh)
    for name, table in (("generator", "shared"), ("ema", "shared"), ("discriminator", "embed")):
        ours, theirs = getattr(state, name), getattr(source, name)
        rows = ours.params[table]["embedding"]
        if mode == "mean":
            mean = np.asarray(theirs.params[table]["embedding"]).mean(0)
            np.testing.assert_allclose(rows, np.tile(mean, (3, 1)), rtol=1e-6)
        else:
            np.testing.assert_array_equal(rows, getattr(anew, name).params[table]["embedding"])
    assert state.discriminator.spectral["embed"]["u"].shape == (3,)
    expected = {"averaged": 24} if mode == "mean" else {"new": 24, "dropped": 80}
    assert row(lines, "generator", "shared") == expected
    assert row(lines, "discriminator", "embed").keys() == expected.keys()
    assert "  note: its model.z_distribution is normal, this run's is bernoulli" in lines


def test_tables_of_unshared_classes():
    """Each batch norm has tables of its own; all of them have other rows."""

    def variables(num_classes, seed):
        g, _ = models.build(
            section(shared_embedding=False, hierarchical_z=False, num_classes=num_classes)
        )
        init = lambda key: g.init(key, jnp.zeros((1, 12)), jnp.zeros(1, jnp.int32))
        rng = np.random.default_rng(seed)
        random = lambda x: jnp.asarray(rng.standard_normal(x.shape), jnp.float32)
        return jax.tree.map(random, jax.eval_shape(init, jax.random.key(0)))

    old, new = variables(10, 0), variables(2, 1)
    modules = {name: name for name in new["params"]}
    matching = transfer.match_layers(
        new["params"], old["params"], modules, (2, 10), {"block_0", "block_1"}
    )
    assert len(matching.tables) == 8
    taken = transfer.take(matching, new, old, mean=True)
    for block, norm, part in (("block_0", "bn1", "gain"), ("block_1", "bn2", "bias")):
        rows, theirs = (x["params"][block][norm][part]["embedding"] for x in (taken, old))
        np.testing.assert_allclose(rows, np.tile(theirs.mean(0), (2, 1)), rtol=1e-5)
    assert_equal(taken["params"]["block_0"]["conv1"], old["params"]["block_0"]["conv1"])
    assert_equal(taken["spectral"], old["spectral"])
    assert_equal(taken["batch_stats"], old["batch_stats"])
    fresh = transfer.take(matching, new, old, mean=False)
    assert_equal(fresh["params"]["block_1"]["bn1"], new["params"]["block_1"]["bn1"])


@pytest.mark.full
def test_another_resolution(trained, source):
    """16 to 32 pixels: G grows at its end, D at its beginning."""
    state, lines, _ = start(trained, *OTHER)
    g, old = state.generator, source.generator
    for module in ("linear", "block_0", "attention_8", "block_1"):
        assert_equal(g.params[module], old.params[module])
        assert_equal(state.ema.params[module], source.ema.params[module])
    assert_equal(g.spectral["block_1"], old.spectral["block_1"])
    assert_equal(g.batch_stats["block_1"], old.batch_stats["block_1"])
    assert row(lines, "generator", "block_2").keys() == {"new"}
    assert not np.asarray(g.batch_stats["block_2"]["bn1"]["norm"]["mean"]).any()
    # Of D's four blocks (32 to 16, 16 to 8, 8, 8) the last but one has no counterpart.
    d, old = state.discriminator, source.discriminator
    for module, there in (("block_3", "block_2"), ("block_1", "block_1"), ("block_0", "block_0")):
        assert_equal(d.params[module], old.params[there])
        assert_equal(d.spectral[module], old.spectral[there])
    assert_equal(d.params["linear"], old.params["linear"])
    assert row(lines, "discriminator", "block_2").keys() == {"new"}
    assert any(re.match("  discriminator +block_3 from block_2 +kept", line) for line in lines)


def test_blocks_are_paired_by_resolution():
    def pairs(target, source, name="biggan"):
        build = lambda size: models.build(
            section(name=name, resolution=size, dim_z=840, ch=8, channels=3)
        )
        (g, d), (g2, d2) = build(target), build(source)
        of_g = [stages.generator_stages(x) for x in (g, g2)]
        of_d = [stages.discriminator_stages(x, 3) for x in (d, d2)]
        return (
            transfer.match_stages(*of_g, discriminator=False),
            transfer.match_stages(*of_d, discriminator=True),
        )

    g, d = pairs(256, 128)
    assert all(g[f"block_{i}"] == f"block_{i}" for i in range(5)) and "block_5" not in g
    assert all(d[f"block_{i + 1}"] == f"block_{i}" for i in range(6)) and "block_0" not in d
    g, d = pairs(128, 64, "biggan_deep")  # two blocks a stage
    assert all(g[f"block_{i}"] == f"block_{i}" for i in range(8)) and "block_9" not in g
    assert d["block_9"] == "block_7" and d["block_2"] == "block_0" and d["stem"] == "stem"


def table(target, source):
    """{module of G: row}, from shapes alone."""
    shapes, order = [], []
    for changes in (target, source):
        g, _ = models.build(section(**changes))
        init = lambda key, g=g: g.init(key, jnp.zeros((1, g.dim_z)), jnp.zeros(1, jnp.int32))
        shapes.append(jax.eval_shape(init, jax.random.key(0))["params"])
        order.append([stage.name for stage in stages.generator_stages(g)])
    modules = {name: name for name in order[0] if name in order[1]}
    matching = transfer.match_layers(*shapes, modules, (10, 10), {"block_0", "block_1"})
    return {row.module: row for row in transfer.rows(matching, *shapes, order[0], mean=False)}


def test_another_length_of_z_keeps_the_layers_that_do_not_see_it():
    got = table({"dim_z": 15}, {"dim_z": 12})
    # conv1, conv2 and the shortcut; gains and biases of both batch norms see 8 + 5 numbers now.
    kept = 2 * (9 * 16 * 16 + 16) + 16 * 16 + 16
    expected = transfer.Row("block_0", "block_0", kept, new=4 * 16 * 13, dropped=4 * 16 * 12)
    assert got["block_0"] == expected
    assert got["linear"] == transfer.Row("linear", "linear", new=256 * 6, dropped=256 * 5)


def test_attention_is_kept_whole_or_not_at_all():
    """gamma alone would bring convolutions in that know nothing yet."""
    with_k = lambda k: {"g_attention": (8,), "attention_reduction": k}
    assert table(with_k(8), with_k(8))["attention_8"].new == 0
    changed = table(with_k(4), with_k(8))["attention_8"]
    assert changed.kept == 0 and changed.new > 0 and changed.dropped > 0
    gone = table({}, with_k(8))["attention_8"]
    assert gone.source is None and gone.dropped == changed.dropped


@pytest.mark.parametrize(
    ("name", "other"),
    [pytest.param("g", "ema", marks=pytest.mark.full), ("g_ema", "generator")],
)
def test_a_directory_with_one_generator(trained, source, tmp_path, name, other):
    """As an import makes one: the same weights serve twice, and D starts anew."""
    held = {"g": source.generator, "g_ema": source.ema}[name]
    directory = model_directory(trained, tmp_path / "model", **{name: held.variables})
    state, lines, train_step = start(directory, "--config.ema.start_step=9")
    assert_equal(state.generator.variables, held.variables)
    assert_equal(state.ema.variables, held.variables)
    buffer = lambda player: player.params["rgb"]["kernel"].unsafe_buffer_pointer()
    assert buffer(state.generator) != buffer(state.ema)
    anew = state_lib.create(train_step.init, 0, train_step.mesh).discriminator
    assert_equal(state.discriminator.params, anew.params)
    assert row(lines, "discriminator", "total").keys() == {"new"}
    notes = "\n".join(line for line in lines if "note" in line)
    assert f"{other} starts from {name}" in notes and "discriminator starts anew" in notes
    assert "until ema.start_step (9)" in notes


def test_a_directory_with_a_discriminator(trained, source, tmp_path):
    d = source.discriminator.variables
    directory = model_directory(trained, tmp_path / "model", d=d)
    state, lines, _ = start(directory)
    assert_equal(state.discriminator.variables, d)
    assert row(lines, "generator", "total").keys() == {"new"}
    assert_equal(state.generator.params, state.ema.params)


def test_kept_optimizer(trained, source):
    state, *_ = start(trained, "--config.finetune.keep_optimizer")
    for name in ("generator", "discriminator"):
        assert_equal(getattr(state, name).opt_state, getattr(source, name).opt_state)
    assert state.generator.opt_state[0].count == 4


def test_kept_moments_of_other_optimizers():
    """A decay starts anew, whatever has been frozen is found again."""
    params = {"block_0": {"kernel": jnp.ones(2)}, "linear": {"kernel": jnp.ones(3)}}
    section = default_config().optimizer
    plain = optimizers.adam(section, 1e-3)
    section.decay_start_step, section.decay_end_step = 1, 9
    decaying = optimizers.adam(section, 1e-3)
    frozen = optimizers.freeze(plain, frozenset({"block_0"}))
    of = {}
    for name, optimizer in (("plain", plain), ("decaying", decaying), ("frozen", frozen)):
        _, of[name] = optimizers.update(optimizer, params, optimizer.init(params), params)
    matching = transfer.match_layers(
        params, params, {name: name for name in params}, (2, 2), {"block_0"}
    )
    take = functools.partial(transfer.take_moments, matching)
    got = take(decaying.init(params), of["decaying"])
    assert_equal(got[0], of["plain"][0])
    assert got[0].count == 1 and got[1].count == 0
    assert_equal(take(frozen.init(params), of["plain"]), of["frozen"])
    got = take(plain.init(params), of["frozen"])[0]
    assert got.count == 0 and not got.nu["block_0"]["kernel"].any()
    assert_equal(got.nu["linear"], of["plain"][0].nu["linear"])
    section.beta1 = 0.5
    averaging = optimizers.adam(section, 1e-3)
    for source in ("plain", "decaying"):  # without first moments, which start at 0
        got = take(averaging.init(params), of[source])[0]
        assert_equal(got.nu, of["plain"][0].nu)
        assert got.count == 1 and not any(x.any() for x in jax.tree.leaves(got.mu))


def test_a_source_lies_on_all_devices(trained):
    config = runs.tiny_config(f"--config.init_from={trained}", "--config.finetune.keep_optimizer")
    mesh = sharding.make_mesh((2,))
    read = finetune.read(config, mesh)
    leaves = jax.tree.leaves((read.weights, read.optimizers))
    assert leaves and all(
        leaf.sharding.is_equivalent_to(sharding.replicated(mesh), leaf.ndim) for leaf in leaves
    )


@pytest.mark.full
def test_kept_optimizer_beside_new_weights(trained, source):
    state, *_ = start(trained, *OTHER, "--config.finetune.keep_optimizer")
    ours, theirs = state.discriminator.opt_state[0], source.discriminator.opt_state[0]
    assert_equal(ours.nu["block_3"], theirs.nu["block_2"])
    assert np.asarray(ours.nu["block_3"]["conv1"]["kernel"]).any()
    assert ours.nu["embed"]["embedding"].shape == (3, 16)
    assert not np.asarray(ours.nu["embed"]["embedding"]).any()
    assert ours.count == 0  # new weights need their bias correction


@pytest.mark.full
def test_frozen_layers_of_d(trained, tmp_path):
    """Not a bit moves, whatever Adam brings along and the regularizer adds; but u advances."""
    state, lines, train_step = start(
        trained,
        "--config.model.init=normal",
        "--config.finetune.freeze_d=2",
        "--config.finetune.keep_optimizer",
        "--config.optimizer.beta1=0.5",
        "--config.regularizer.d_orthogonal=0.1",
    )
    frozen = {"block_0", "block_1"}
    assert train_step.d_frozen == frozen
    assert {line.split()[1] for line in lines if line.endswith("frozen")} == frozen
    rng = np.random.default_rng(0)
    real = jnp.asarray(rng.uniform(-1, 1, (4, 16, 16, 1)), jnp.float32)
    z = jnp.asarray(rng.standard_normal((4, 12)), jnp.float32)
    labels = jnp.arange(4, dtype=jnp.int32)
    d_step = jax.jit(train_step.d_step)
    first, metrics = d_step(state, real, labels, z, labels)
    second, _ = d_step(first, real, labels, z, labels)
    old, new = state.discriminator, second.discriminator
    for module in old.params:
        check = assert_equal if module in frozen else assert_differ
        check(new.params[module], old.params[module])
    for module in frozen:
        assert_differ(new.spectral[module], old.spectral[module])
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(2, second, {})
    checkpoints.close()
    target = state_lib.abstract(train_step.init, train_step.mesh)
    assert_equal(checkpoints.restore(target)[0].discriminator, second.discriminator)
    # Adam knows no frozen layer; the gradients it took are all that the norm is made of.
    before, after = (flat(s.discriminator.opt_state.inner_state[0].mu) for s in (state, first))
    assert after and not any(name.startswith(tuple(frozen)) for name in after)
    squares = [np.square((after[name] - 0.5 * before[name]) / 0.5).sum() for name in after]
    np.testing.assert_allclose(metrics["d_grad_norm"], np.sqrt(sum(squares)), rtol=1e-4)


def test_frozen_modules():
    """What stands before and between the blocks is frozen too, what follows is not."""
    deep = section(name="biggan_deep", resolution=32, ch=8, dim_z=12, d_attention=(16,))
    _, d = models.build(deep)
    assert stages.frozen_modules(d, 3, 0) == frozenset()
    assert stages.frozen_modules(d, 3, 1) == {"stem", "block_0"}
    assert stages.frozen_modules(d, 3, 2) == {"stem", "block_0", "block_1"}
    assert stages.frozen_modules(d, 3, 3) == {
        "stem",
        "block_0",
        "block_1",
        "attention_16",
        "block_2",
    }
    with pytest.raises(UserError, match="freeze_d is 7, but this discriminator has 6 blocks"):
        stages.frozen_modules(d, 3, 7)


@pytest.mark.full
def test_a_tuned_run_and_its_resumption(run_copy, tmp_path, capsys):
    """With a restart, and without its source, it equals a straight run bit for bit."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    two = ("--config.num_steps=2", "--config.checkpoint_every_steps=1")
    assert runs.train(straight, f"--config.init_from={run_copy}", *two) == 0
    err = capsys.readouterr().err
    assert "starting from" in err and re.search("generator +block_0 +kept", err)
    shutil.copytree(straight, resumed)
    shutil.rmtree(resumed / "checkpoints" / "2")
    shutil.rmtree(run_copy)
    assert runs.train(resumed, *two) == 0  # init_from need not be said again
    err = capsys.readouterr().err
    assert "resuming" in err and "starting from" not in err
    runs.assert_same_state(resumed, straight, 2)
    assert json.loads((resumed / "config.json").read_text())["init_from"] == str(run_copy)
    assert runs.train(resumed, "--config.init_from=elsewhere", *two) == 2
    runs.assert_one_error(capsys.readouterr(), "init_from .*run -> elsewhere")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["--config.init_from=/nowhere"], "--config.init_from=/nowhere: .*no such directory"),
        (["--config.model.name=biggan_deep", "--config.model.resolution=32",
          "--config.model.g_attention=()"],
         "its model.name is biggan, but this run's is biggan_deep"),
        (["--config.model.cond_order=z_embedding"], "its model.cond_order is embedding_z"),
        (["--config.model.ch=8"], r"none of its blocks fits .*\(ch 4, "),
        (["--config.finetune.freeze_d=4"], "freeze_d is 4, but .* has 3 blocks"),
        (["--config.finetune.freeze_d=-1"], "freeze_d is -1"),
        (["--config.finetune.new_classes=copy"], "'copy'.* fresh or mean"),
        (["--config.model.channels=3", "--config.finetune.freeze_d=1"],
         "freeze_d is 1, but .* block_0 .* are new"),
    ],
)  # fmt: skip
def test_bad_requests(trained, overrides, words):
    with pytest.raises(UserError, match=words) as error:
        config = runs.tiny_config(f"--config.init_from={trained}", *overrides)
        finetune.check(config)
        start(trained, *overrides)
    assert "\n" not in str(error.value)


def test_bad_requests_of_a_command(trained, tmp_path, capsys):
    for arguments, words in (
        (["--config.finetune.freeze_d=1"], "freeze_d is 1, but .*--config.init_from"),
        (["--config.finetune.keep_optimizer"], "keep_optimizer is True, but .*--config.init_from"),
        ([f"--config.init_from={tmp_path}"], "it holds no config.json"),
        ([f"--config.init_from={tmp_path / 'run'}"], "is the workdir"),
        ([f"--config.init_from={tmp_path / 'run'}@best"], "is the workdir"),
    ):
        assert runs.train(tmp_path / "run", *arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].startswith("biggan: ") and re.search(words, lines[-1]), lines
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.full
def test_directories_without_what_is_asked_for(trained, source, tmp_path):
    empty = model_directory(trained, tmp_path / "empty")
    with pytest.raises(UserError, match="none of weights/{g,g_ema,d}"):
        start(empty)
    g_only = model_directory(trained, tmp_path / "g", g=source.generator.variables)
    with pytest.raises(
        UserError, match="only a checkpoint .* leave out --config.finetune.keep_opt"
    ):
        start(g_only, "--config.finetune.keep_optimizer")
    with pytest.raises(UserError, match="freeze_d is 1, but .* no weights for all of block_0"):
        start(g_only, "--config.finetune.freeze_d=1")
