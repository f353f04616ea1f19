"""The registry of model families: name -> (Generator, Discriminator)."""

import difflib
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from biggan_jax.errors import UserError
from biggan_jax.models import biggan
from biggan_jax.models.layers import LayerSettings

REGISTRY = {"biggan": biggan}


def build(
    model: Any, *, dtype=jnp.float32, param_dtype=jnp.float32, fused: bool = True
) -> tuple[nn.Module, nn.Module]:
    """Builds the two players of one model family.

    Args:
      model: the `model` section of a config (attributes as in `config.default_config().model`).
      dtype: compute dtype of the activations.
      param_dtype: dtype of the parameters.
      fused: fuse resampling into convolutions; False only to count or check against the textbook
        form.

    Returns:
      (generator, discriminator), unbound Flax modules:
      `generator.apply(variables, z [N, dim_z], labels [N], train)` gives images in [-1, 1],
      `discriminator.apply(variables, images, labels, train)` gives logits [N].

    Raises:
      UserError: when the section asks for something that the family does not have.
    """
    check(model)
    settings = LayerSettings(
        dtype=jnp.dtype(dtype),
        param_dtype=jnp.dtype(param_dtype),
        kernel_init=nn.initializers.orthogonal(),
        sn_eps=model.sn_eps,
        sn_iterations=model.sn_iterations,
        sn_eval=model.sn_eval,
        bn_eps=model.bn_eps,
        bn_momentum=model.bn_momentum,
        fused=fused,
    )
    family = REGISTRY[model.name]
    num_classes = model.num_classes
    generator = family.Generator(
        resolution=model.resolution,
        ch=model.ch,
        channels=model.channels,
        num_classes=num_classes,
        dim_z=model.dim_z,
        shared_dim=model.shared_dim,
        attention=tuple(model.g_attention),
        cond_order=model.cond_order,
        rgb_width=model.rgb_width,
        settings=settings,
    )
    discriminator = family.Discriminator(
        resolution=model.resolution,
        ch=model.ch,
        num_classes=num_classes,
        attention=tuple(model.d_attention),
        settings=settings,
    )
    if model.dim_z % generator.num_chunks:
        chunk = max(round(model.dim_z / generator.num_chunks), 1)
        raise UserError(
            f"model.dim_z is {model.dim_z}, but {model.name} at {model.resolution} pixels splits z "
            f"into {generator.num_chunks} equal chunks: set --config.model.dim_z="
            f"{chunk * generator.num_chunks}"
        )
    for key, player in (("g_attention", generator), ("d_attention", discriminator)):
        _check_attention(key, getattr(model, key), player.attention_widths())
    return generator, discriminator


def check(model: Any) -> None:
    """Raises UserError for a `model` section with values outside their domain."""
    _check_choice("model.name", model.name, REGISTRY)
    REGISTRY[model.name].check_resolution(model.resolution)
    _check_choice("model.sn_eval", model.sn_eval, ("iterate", "stored"))
    _check_choice("model.cond_order", model.cond_order, ("embedding_z", "z_embedding"))
    _check_choice("model.z_distribution", model.z_distribution, ("normal",))
    if model.channels not in (1, 3):
        raise UserError(
            f"model.channels is {model.channels}; images have 1 (grey) or 3 (RGB) channels: set "
            "--config.model.channels"
        )
    if model.num_classes is None:
        raise UserError(
            "model.num_classes is not set and there is no data to read it from: set "
            "--config.model.num_classes=N (1 for an unconditional model)"
        )
    for key in ("ch", "num_classes", "dim_z", "shared_dim", "sn_iterations"):
        if model[key] < 1:
            raise UserError(f"model.{key} is {model[key]}; set --config.model.{key} to 1 or more")
    if model.rgb_width is not None and model.rgb_width < model.channels:
        raise UserError(
            f"model.rgb_width is {model.rgb_width} but model.channels is {model.channels}: set "
            "--config.model.rgb_width to at least the channels"
        )


def _check_choice(key: str, value: str, choices) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), list(choices), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UserError(
            f"{key} is {value!r}{hint}; set --config.{key} to one of {', '.join(choices)}"
        )


def _check_attention(key: str, resolutions: tuple[int, ...], widths: dict[int, int]) -> None:
    for resolution in resolutions:
        if resolution not in widths:
            raise UserError(
                f"model.{key} asks for attention at {resolution} pixels, but the blocks end at "
                f"{', '.join(map(str, widths))}: set --config.model.{key} to some of these"
            )
        if widths[resolution] < 8:
            raise UserError(
                f"model.{key} puts attention on {widths[resolution]} channels at {resolution} "
                "pixels, fewer than the 8 that its keys need (C/8): raise --config.model.ch or "
                f"remove the resolution from --config.model.{key}"
            )
