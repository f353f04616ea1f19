"""Settings without effect: what is found is so, and packaged configs have none."""

import re

import jax
import jax.numpy as jnp
import pytest

from biggan_jax import models
from biggan_jax.config import carried, config_file, default_config, effect
from tests import runs

SMALL = ("--config.model.ch=8", "--config.model.resolution=32", "--config.model.num_classes=10")


def found(*overrides, config=runs.DIGITS):
    return {one.key: one for one in effect.without(config_file.load(config, list(overrides)))}


def test_packaged_configs_have_none():
    for name in carried.files():
        assert effect.without(config_file.load(name, [])) == [], name
    assert effect.without(runs.tiny_config()) == []


@pytest.mark.parametrize(
    ("key", "without", "with_effect"),
    [
        ("model.attention_reduction=4", [], ["model.g_attention=8"]),
        ("model.attention_form=paper", [], ["model.d_attention=8"]),
        ("model.attention_form=paper",
         ["model.g_attention=8", "model.attention_kind=residual"], ["model.g_attention=8"]),
        ("model.shared_dim=7", ["model.num_classes=1"], []),
        ("model.shared_dim=7",
         ["model.shared_embedding=False", "model.hierarchical_z=False"], []),
        ("model.cond_order=z_embedding", ["model.hierarchical_z=False"], []),
        ("model.sn_iterations=2",
         ["model.g_spectral_norm=False", "model.d_spectral_norm=False"],
         ["model.g_spectral_norm=False"]),
        ("regularizer.every_steps=4", [], ["regularizer.r2=1"]),
        ("regularizer.every_steps=4", [], ["regularizer.dragan=1"]),
        ("regularizer.every_steps=4", ["regularizer.lecam=1"], ["regularizer.zcr_d=1"]),
        ("regularizer.consistency_flip=False", [], ["regularizer.consistency_fake=1"]),
        ("regularizer.zcr_sigma=0.1", [], ["regularizer.zcr_g=1"]),
        ("regularizer.g_spectral_groups=2", [], ["regularizer.g_group_spectral=1"]),
        ("regularizer.g_spectral_beta=0.9", [], ["regularizer.g_group_spectral=1"]),
        ("regularizer.lecam_decay=0.9", [], ["regularizer.lecam=1"]),
        ("regularizer.lecam=1", ["regularizer.lecam_start_step=1200"],
         ["regularizer.lecam_start_step=1199"]),
        ("regularizer.orthogonal_form=full", [], ["regularizer.d_orthogonal=1e-4"]),
        ("data.stage=/disk", [], ["data.source=records:gs://bucket/dir"]),
        ("data.stage=/disk", ["data.source=folder:pets"], ["data.source=tfds:cifar10"]),
        ("data.stage_gb=9", ["data.source=records:dir"],
         ["data.source=records:dir", "data.stage=/disk"]),
        ("augment.ops=colour", ["augment.policy=ada"], ["augment.policy=diffaugment"]),
        ("augment.groups=blit", ["augment.policy=diffaugment"], ["augment.policy=ada"]),
        ("augment.target=0.5", [], ["augment.policy=diffaugment"]),
        ("augment.every_steps=8",
         ["augment.policy=ada", "augment.probability=0.5"], ["augment.policy=ada"]),
        ("augment.heuristic=held_out", [], ["augment.policy=ada", "data.holdout=0.1"]),
        ("augment.heuristic=held_out", ["augment.policy=diffaugment"],
         ["augment.policy=diffaugment", "augment.target=0.5"]),
        ("augment.ramp_images=800",
         ["augment.policy=diffaugment"], ["augment.policy=diffaugment", "augment.target=0.5"]),
        ("finetune.freeze_d=1", [], ["init_from=there"]),
        ("data.fake_labels=data", ["loss=relativistic"], []),
        ("data.fake_labels=data", ["model.num_classes=1"], ["model.num_classes=10"]),
        ("eval_samples=500", [], ["eval_every_steps=600"]),
        ("eval_every_steps=5000", [], ["num_steps=5000"]),
        ("optimizer.decay_start_step=1200", ["optimizer.decay_end_step=2000"],
         ["optimizer.decay_end_step=2000", "num_steps=1201"]),
        ("optimizer.decay_start_step=100",
         ["optimizer.decay_end_step=2000", "optimizer.schedule=constant"],
         ["optimizer.decay_end_step=2000", "optimizer.schedule=cosine"]),
        ("optimizer.schedule=cosine",
         ["optimizer.decay_start_step=1200", "optimizer.decay_end_step=2000"],
         ["optimizer.decay_start_step=1199", "optimizer.decay_end_step=2000"]),
        ("regularizer.sigma_clamp_form=ratio", [], ["regularizer.d_sigma_clamp=1.5"]),
        ("ema.start_step=7", ["ema.decay=0"], []),
        ("ema.decay=0.98", ["ema.start_step=1200"], ["ema.start_step=1199"]),
    ],
)  # fmt: skip
def test_what_is_found(key, without, with_effect):
    name = key.partition("=")[0]
    one = found(*(f"--config.{text}" for text in (*without, key)))[name]
    assert name in effect.line(one) and one.why and one.remedy
    assert name not in found(*(f"--config.{text}" for text in (*with_effect, key)))


def traced(model) -> str:
    """Everything that both players compute, as text."""
    text = ""
    images = jnp.zeros((2, model.resolution, model.resolution, model.channels))
    labels = jnp.zeros(2, jnp.int32)
    for net, x in zip(models.build(model), (jnp.zeros((2, model.dim_z)), images), strict=True):

        def run(key, net=net, x=x):
            variables = net.init(key, x, labels, train=True)
            mutable = ["batch_stats", "spectral"]
            return net.apply(variables, x, labels, train=True, mutable=mutable)

        text += str(jax.make_jaxpr(run)(jax.random.key(0)))
    return re.sub("0x[0-9a-f]+", "", text)


@pytest.mark.parametrize(
    "name", ["sagan128", pytest.param("sngan128", marks=pytest.mark.full), "dcgan_cifar10"]
)
def test_a_family_does_not_read_what_is_said_of_it(name):
    """Against the trace of its networks."""
    attention = ["--config.model.g_attention=()", "--config.model.d_attention=()"]
    new = {
        "shared_embedding": True, "hierarchical_z": True, "shared_dim": 7, "d_thin": True,
        "cond_order": "z_embedding", "width_table": "studiogan", "attention_reduction": 4,
        "attention_form": "paper",
    }  # fmt: skip
    plain = config_file.load(name, [*SMALL, *attention])
    other = config_file.load(name, [*SMALL, *attention])
    unread = effect._UNREAD[plain.model.name]
    for key in (*unread, "attention_reduction"):
        if key in new:
            other.model[key] = new[key]
    assert traced(plain.model) == traced(other.model)
    keys = {one.key for one in effect.without(other)}
    assert {"model.shared_dim", "model.cond_order", "model.attention_reduction"} <= keys
    other.model.sn_iterations = 3
    assert traced(plain.model) != traced(other.model)


def test_the_blocks_of_biggan_deep_are_no_biggans():
    c = default_config()
    c.model.num_classes, c.model.deep_blocks, c.model.d_skip = 2, "studiogan", "activated"
    assert [one.key for one in effect.without(c) if "model" in one.key] == ["model.deep_blocks"]
    c.model.name = "biggan_deep"
    assert not [one.key for one in effect.without(c) if "model" in one.key]


def test_train_says_so(run_copy, capsys):
    """Once, at the start, on stderr; the run goes on."""
    assert runs.train(run_copy, "--config.eval_samples=500") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: eval_samples has no effect: no step is scored; set --config.eval_every_steps"
    ]
