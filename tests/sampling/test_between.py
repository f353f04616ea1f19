"""Samples between two classes, and latents of any truncation by one program."""

import jax
import numpy as np
import pytest

from biggan_jax.errors import UserError
from biggan_jax.sampling import latents
from biggan_jax.sampling.generator import LoadedGenerator
from tests.sampling.explored import config_of, random_variables

N = 3


@pytest.mark.parametrize(
    "changes",
    [
        {"hierarchical_z": True, "dim_z": 12},
        pytest.param(
            {"name": "sagan", "init": "xavier", "dim_z": 8, "g_attention": (8,)},
            marks=pytest.mark.full,
        ),
    ],
)
def test_tables_give_the_mean_of_two_rows(changes):
    config = config_of(**changes)
    g = LoadedGenerator(config, random_variables(config.model))
    z, labels = g.sample_z(0, N), np.array([0, 1, 4])
    others, weights = np.array([3, 2, 0]), np.array([0.25, 0.5, 1])
    images, maps = g.between(z, labels, others, weights, attention=True)

    def by_hand(sample):
        a, b, w = labels[sample], others[sample], weights[sample]

        def row(path, x):
            if path[-1].key != "embedding":
                return x
            return x.at[a].set((1 - w) * x[a] + w * x[b])

        params = jax.tree_util.tree_map_with_path(row, g._variables["params"])
        mixed = g.replace(g._variables | {"params": params})
        # At one class, which the end of this test holds against `g(z, labels)`.
        images, maps = mixed.between(z, labels, labels, np.zeros(N), attention=True)
        return images[sample], {layer: beta[sample] for layer, beta in maps.items()}

    for sample in range(N):
        image, own_maps = by_hand(sample)
        np.testing.assert_allclose(images[sample], image, atol=1e-5)
        assert maps.keys() == own_maps.keys()
        for layer, beta in own_maps.items():
            np.testing.assert_allclose(maps[layer][sample], beta, atol=1e-5)
    assert np.abs(images - g(z, labels)).max() > 1e-2
    one, none = g.between(z, labels, others, np.zeros(N))
    assert none == {}
    np.testing.assert_allclose(one, g(z, labels), atol=1e-5)
    for wrong in ([0, 0, 1.5], [0, 0], [-0.1, 0, 0], [0, np.nan, 0]):
        with pytest.raises(UserError, match="weights"):
            g.between(z, labels, others, wrong)
    with pytest.raises(UserError, match="class 5 does not exist"):
        g.between(z, labels, [5, 0, 0], weights)


def test_one_program_for_every_truncation():
    asked = [(kind, t) for kind in latents.KINDS for t in (0.3, 1.1, 2.0)]

    def draw(kind, truncation, **settings):
        given = {"truncation": truncation, "kind": kind, "distribution": "normal"}
        return latents.draw(7, range(5), 6, **given, **settings)

    latents._block_of_any_truncation.clear_cache()
    drawn = [draw(*one, any_truncation=True) for one in asked]
    assert latents._block_of_any_truncation._cache_size() == len(latents.KINDS)
    for z, one in zip(drawn, asked, strict=True):
        np.testing.assert_allclose(z, draw(*one), rtol=1e-6, atol=1e-7)
    with pytest.raises(UserError, match="above 0"):
        draw("resample", -1.0, any_truncation=True)
