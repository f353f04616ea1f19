"""What every layer of a model shares."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from biggan_jax.config import default_config
from biggan_jax.models.initializers import INITIALIZERS

Dtype = jnp.dtype
Initializer = Callable[..., jax.Array]
Made = TypeVar("Made")
_DEFAULTS = default_config().model  # values stand there alone


@dataclasses.dataclass(frozen=True)
class LayerSettings:
    """What every layer of a model shares.

    A field with the name of an entry of the config's `model` section takes its value from there
    (`of_section`).

    Attributes:
      dtype: dtype of activations and of the convolutions (float32 or bfloat16).
      param_dtype: dtype of parameters (float32; float64 under x64).
      kernel_init: initialiser of every kernel and embedding; biases start at zero.
      table_init: initialiser of the per-class tables of batch norm; None takes kernel_init.
      sn_eps: floor of the norms in the power iteration, `x / max(|x|, eps)`.
      sn_iterations: power iterations of one training forward.
      sn_eval: 'iterate': an eval forward computes sigma by one iteration that is not stored (as
        BigGAN-PyTorch); 'stored': it uses the stored u and v as they are (as torch's
        spectral_norm).
      bn_eps: added to the batch variance.
      bn_momentum: weight of the old running statistics in an update.
      bn_variance: which batch variance the running statistics take: 'unbiased' (n - 1, as torch's
        batch_norm) or 'biased' (n, as TensorFlow and BigGAN-PyTorch's `--mybn`). A forward always
        normalises with the biased one.
      spectral_norm: normalise the kernels of this player spectrally.
      fused: fuse resampling into convolutions (`models/resample.py`).
      bn_group_size: examples of one group of batch norm's training statistics; None: all of them.
      remat: resolutions (pixels) of the blocks that are recomputed in the backward pass, or 'all'.
      attention_kind: 'attention', or 'residual': the attention-free control in its place.
      attention_form: 'published' or 'paper', see `attention.SelfAttention`.
      attention_reduction: k; queries and keys of attention have C / k channels.
      d_dropout: share of the features before D's last layer that a training forward drops.
      d_head: D's last layer: 'linear', or 'san' (`models/san.py`).
      mesh: over which the batch is split, for what the compiler cannot split by itself; None where
        the devices are not known.
    """

    dtype: Dtype = jnp.float32
    param_dtype: Dtype = jnp.float32
    kernel_init: Initializer = INITIALIZERS[_DEFAULTS.init]
    table_init: Initializer | None = None
    sn_eps: float = _DEFAULTS.sn_eps
    sn_iterations: int = _DEFAULTS.sn_iterations
    sn_eval: str = _DEFAULTS.sn_eval
    bn_eps: float = _DEFAULTS.bn_eps
    bn_momentum: float = _DEFAULTS.bn_momentum
    bn_variance: str = _DEFAULTS.bn_variance
    spectral_norm: bool = True
    fused: bool = True
    bn_group_size: int | None = None
    remat: tuple[int | str, ...] = ()
    attention_kind: str = _DEFAULTS.attention_kind
    attention_form: str = _DEFAULTS.attention_form
    attention_reduction: int = _DEFAULTS.attention_reduction
    d_dropout: float = _DEFAULTS.d_dropout
    d_head: str = _DEFAULTS.d_head
    mesh: Mesh | None = None


def of_section(cls: type[Made], section: Any, **own: Any) -> Made:
    """Makes a dataclass whose fields are named after the entries of a config section.

    Args:
      cls: `LayerSettings`, or a module.
      section: of a config, such as `config.model`.
      **own: fields that the section has no entry for, or another value.
    """
    # Every module has these two beside its own fields, and a model section a `name` as well.
    names = {field.name for field in dataclasses.fields(cls)} - {"name", "parent"}
    return cls(**{name: section[name] for name in names if name in section} | own)


def at_least_float32(x: jax.Array) -> jax.Array:
    """x in float32, or in its own dtype where that is wider."""
    # numpy's promote_types: jax's own refuses bfloat16 under strict dtype promotion.
    return x.astype(np.promote_types(x.dtype, np.float32))
