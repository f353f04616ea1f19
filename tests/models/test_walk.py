"""The walk over a player's modules, and that every place of attention is where a block ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from biggan_jax import models
from biggan_jax.errors import UserError
from biggan_jax.models import layers, walk
from tests.models.test_biggan import section

EVERY = [
    (name, resolution, table)
    for name, family in models.REGISTRY.items()
    for resolution in family.G_WIDTHS
    for table in ("biggan_pytorch", "studiogan")
    if table == "biggan_pytorch" or name in ("biggan", "biggan_deep", "sagan")
]
# A family adds one block for every doubling from 64 pixels on: 128 to 512 are longer, not others.
SMALL_FIRST = [
    pytest.param(*one, marks=[pytest.mark.full] * (one[1] > (32 if one[2] == "studiogan" else 64)))
    for one in EVERY
]


def model_at(name, resolution, table, **changes):
    chunks = len(models.REGISTRY[name].G_WIDTHS[resolution])
    # The control stands on any number of channels and of pixels.
    changes = {"attention_kind": "residual", "ch": 4, "dim_z": 2 * chunks} | changes
    return section(name=name, resolution=resolution, width_table=table, **changes)


def block_ends(found):
    """{size: channels} where residual blocks end, the first one of each size."""
    ends = {}
    for call in found.top_level():
        if call.path[0].startswith("block_"):
            ends.setdefault(call.output.shape[1], call.output.shape[-1])
    return ends


def attention_stands(found):
    """{size: channels} of the maps that attention, or its control, takes."""
    return {
        call.inputs[0].shape[1]: call.inputs[0].shape[-1]
        for call in found.top_level()
        if call.path[0].startswith(("attention_", "residual_"))
    }


@pytest.mark.parametrize(("name", "resolution", "table"), SMALL_FIRST)
def test_attention_can_stand_where_blocks_end_and_does(name, resolution, table):
    players = models.build(model_at(name, resolution, table))
    places = [player.attention_widths() for player in players]
    if name != "dcgan":
        everywhere = {"g_attention": tuple(places[0]), "d_attention": tuple(places[1])}
        players = models.build(model_at(name, resolution, table, **everywhere))
    walks = walk.of_generator(players[0]), walk.of_discriminator(players[1], channels=3)
    ends = [block_ends(found) for found in walks]
    # BigGAN-deep's first block changes nothing: G's attention stands after what doubles the size.
    ends[0].pop(models.biggan.BOTTOM, None)
    assert places == ends
    assert [attention_stands(found) for found in walks] == ends
    assert all(ends) or name == "dcgan"


def test_sngan_at_64_pixels_halves_five_times():
    _, d = models.build(model_at("sngan", 64, "biggan_pytorch"))
    assert d.attention_widths() == {32: 4, 16: 8, 8: 16, 4: 32, 2: 64}


@pytest.mark.parametrize(("resolution", "sizes"), [(32, "8, 16, 32"), (64, "4, 8, 16, 32, 64")])
def test_a_size_without_a_block_is_no_size_to_recompute(resolution, sizes):
    m = model_at("biggan", resolution, "biggan_pytorch")
    with pytest.raises(UserError, match=f"no block works at 2: .* some of {sizes}, or to all"):
        models.build(m, remat=(2,))
    models.build(m, remat=tuple(map(int, sizes.split(","))))


@pytest.mark.parametrize("name", models.REGISTRY)
def test_the_calls_of_a_walk(name):
    m = section(name=name, ch=8, g_attention=(), d_attention=())
    generator, discriminator = models.build(m)
    for found, player, inputs in (
        (walk.of_generator(generator, 2), generator, walk.generator_inputs(generator, 2)),
        (
            walk.of_discriminator(discriminator, 3, 2),
            discriminator,
            walk.discriminator_inputs(discriminator, 3, 2),
        ),
    ):
        shapes = jax.eval_shape(player.init, jax.random.key(0), *inputs)
        assert jax.tree.map(lambda a, b: a == b, found.variables, dict(shapes))
        top = found.top_level()
        names = [call.path[0] for call in top]
        assert len(set(names)) == len(names) and set(names) == set(shapes["params"])
        # Inner modules come before the module that they are in.
        order = [call.path for call in found.calls]
        for path in order:
            assert len(path) == 1 or order.index(path) < order.index(path[:1])
        for call in top:
            alone = jax.eval_shape(
                lambda v, *x, module=call.module: module.apply(v, *x, False),
                found.variables_of(call),
                *call.inputs,
            )
            assert (alone.shape, alone.dtype) == (call.output.shape, call.output.dtype)


def test_recomputed_blocks_are_walked_once():
    m = section(name="biggan_deep", ch=8)
    plain, recomputed = (models.build(m, remat=r)[0] for r in ((), ("all",)))
    paths, again = ([c.path for c in walk.of_generator(g).calls] for g in (plain, recomputed))
    assert paths == again


def test_variables_of_a_module_called_twice():
    class Twice(layers.nn.Module):
        @layers.nn.compact
        def __call__(self, x):
            layer = layers.Dense(features=3, name="layer")
            return layer(layer(x, False), False)

    found = walk.walk(Twice(), jax.ShapeDtypeStruct((2, 3), jnp.float32))
    assert len(found.calls) == 2 and len(found.top_level()) == 1
    variables = found.variables_of(found.calls[0])
    assert variables["params"]["kernel"].shape == (3, 3)
    assert variables["spectral"]["u"].shape == (3,)


def test_values_of_a_forward():
    """Of the modules that are asked for: outputs, arguments and the player's own output."""

    class Player(layers.nn.Module):
        @layers.nn.compact
        def __call__(self, x, train):
            first = layers.Dense(features=3, name="first")(x, train)
            return 2 * layers.Dense(features=1, name="second")(first, train)

    player, x = Player(), jnp.arange(8.0).reshape(2, 4)
    variables = player.init(jax.random.key(1), x, False)
    own = {collection: tree["first"] for collection, tree in variables.items()}
    for train in (False, True):
        kept = {"outputs": {(), ("second",)}, "arguments": {("second",)}}
        made, given = walk.values(player, variables, x, **kept, train=train)
        assert made.keys() == {"", "second"} and given.keys() == {"second"}
        np.testing.assert_array_equal(made[""], 2 * made["second"])
        first, _ = layers.Dense(features=3).apply(own, x, train, mutable=["spectral"])
        np.testing.assert_allclose(given["second"], [first], rtol=1e-6)
