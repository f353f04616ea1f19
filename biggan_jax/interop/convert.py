"""Tensors of a file -> weights of a model directory, every one of them accounted for."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from biggan_jax import config as config_lib
from biggan_jax.errors import UserError, some
from biggan_jax.interop.files import Tensors
from biggan_jax.sampling import classes
from biggan_jax.storage import json_file, paths
from biggan_jax.storage import networks as networks_lib
from biggan_jax.storage.digest import named_leaves
from biggan_jax.storage.weights import NETWORKS, save_weights

NAMES = 20  # tensors that a message spells out


@dataclasses.dataclass
class Network:
    """What becomes `weights/<name>`.

    Attributes:
      name: one of NETWORKS, or that of tensors beside them.
      source: its file.
      keys: {our name: the source's}.
      shapes: {our name: the source's shape}.
      read: reads one tensor by our name, in our layout.
      expected: whether a tensor of the source that nothing here uses is known to be no weight.
    """

    name: str
    source: Tensors
    keys: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    expected: Callable[[str], bool] = lambda key: False

    def check(self) -> None:
        """Raises UserError, naming them, when tensors are missing or have another shape."""
        found, problems = self.source.shapes, []
        missing = [key for key in self.keys.values() if key not in found]
        if missing:
            problems.append(f"missing: {some(missing, NAMES)}")
        other = [
            f"{key} is {found[key]}, not {self.shapes[path]}"
            for path, key in self.keys.items()
            # Some libraries store a scalar, attention's gamma, as one element.
            if key in found and (found[key] or (1,)) != (self.shapes[path] or (1,))
        ]
        if other:
            problems.append(f"misshapen: {some(other, NAMES)}")
        if problems:
            raise UserError(
                f"{self.source.path} does not fit the model ({'; '.join(problems)}): set "
                "--config.model.KEY=VALUE where it was inferred wrongly"
            )

    def unused(self) -> tuple[list[str], list[str]]:
        """Tensors of the source that nothing uses: (known buffers, all others)."""
        left = sorted(self.source.shapes.keys() - set(self.keys.values()))
        return [k for k in left if self.expected(k)], [k for k in left if not self.expected(k)]

    def check_finite(self) -> None:
        """Raises UserError, naming them, when tensors hold NaN or infinity."""
        broken = [
            f"{key} ({NETWORKS.get(self.name, self.name)}/{path})"
            for path, key in self.keys.items()
            if not np.isfinite(np.asarray(self.read(path), np.float32)).all()
        ]
        if broken:
            raise UserError(
                f"{self.source.path} holds NaN or infinity in {some(broken, NAMES)}: take another "
                "file of these weights"
            )

    def tree(self) -> dict:
        """The weights as a nested dict of float32 arrays, read and converted one by one."""
        # On the device at once: saving numpy arrays would put all of them there a second time.
        flat = {
            path: jnp.asarray(np.array(self.read(path), np.float32, order="C"))
            for path in self.keys
        }
        return traverse_util.unflatten_dict(flat, sep="/")

    def parameters(self) -> int:
        """Number of trainable parameters."""
        return sum(math.prod(s) for path, s in self.shapes.items() if path.startswith("params/"))


def target(model: Any, player: str) -> dict[str, jax.ShapeDtypeStruct]:
    """{our name: shape and dtype} of all variables of one player.

    Args:
      model: the `model` section of a config.
      player: 'g' or 'd'.

    Raises:
      UserError: for a section that no model can be built from.
    """
    return named_leaves(networks_lib.shapes(model, player))


def write(config: ConfigDict, networks: list[Network], out: Path) -> dict:
    """Writes a model directory.

    Args:
      config: its `model` section goes into config.json, and the names of the classes where they are
        known.
      networks: what it holds; all are checked before anything is written.
      out: the directory; one that holds the same model already is written again.

    Returns:
      {out, model, networks: {name: {file, parameters, unused}}}.

    Raises:
      UserError: tensors are missing, misshapen or not finite, or `out` holds something else.
      OSError: the directory cannot be written.
    """
    model = model_section(config)
    check_out(out, model)
    for network in networks:
        network.check()
    for network in networks:
        network.check_finite()
    report, saved = {}, {"model": model, **named(config)}
    for network in networks:
        if network.name in NETWORKS:
            buffers, others = network.unused()
            report[network.name] = {
                "file": str(network.source.path),
                "parameters": network.parameters(),
                "unused": others,
                "unused_buffers": len(buffers),
            }
        save_weights(out, network.name, network.tree(), {"config": saved})
    text = json.dumps(saved, indent=2) + "\n"
    paths.write_bytes(out / "config.json", text.encode())
    return {"out": str(out), "model": model, "networks": report}


def model_section(config: ConfigDict) -> dict[str, Any]:
    """The `model` section of a config as JSON holds it: lists in place of tuples."""
    return json.loads(json.dumps(config.model.to_dict()))


def named(config: ConfigDict) -> dict[str, list[str]]:
    """{'class_names': one per class} for a file of a model; {} where they are not known."""
    names = classes.names_of(config)
    return {"class_names": list(names)} if names else {}


def check_out(out: Path, model: dict) -> None:
    """Raises UserError unless weights of a model may be written into a directory.

    Those of two models must not meet there, and what others keep there stays.

    Args:
      out: the directory.
      model: the `model` section as JSON holds it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; name a directory")
    if (out / "checkpoints").exists():
        raise UserError(f"--out {out} is the workdir of a training; choose another directory")
    try:
        saved = json_file.read(out / "config.json")["model"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        saved = {}
    # One of an earlier version lacks the settings that came since: they have their defaults.
    default = model_section(config_lib.default_config())
    if not isinstance(saved, dict) or not saved or {**default, **saved} != model:
        raise UserError(f"--out {out} holds another model; choose another directory")


def lines(result: dict) -> list[str]:
    """What `write` returns, for a person: one line a network and one for its unused tensors."""
    m, text = result["model"], []
    text.append(
        f"{m['name']} of {m['resolution']} pixels, ch {m['ch']}, {m['num_classes']} classes "
        f"in {result['out']}"
    )
    for name, part in result["networks"].items():
        text.append(f"  {name:<6}{part['parameters']:>13,} parameters from {part['file']}")
        if part["unused_buffers"]:
            text.append(f"        {part['unused_buffers']} buffers not used (they hold no weights)")
        if part["unused"]:
            text.append(f"        not used: {', '.join(part['unused'])}")
    return text
