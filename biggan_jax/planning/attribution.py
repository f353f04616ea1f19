"""Which part of a training step an instruction of a compiled program belongs to.

XLA keeps for most instructions the stack of names under which JAX traced them, its `op_name`: the
scopes of the step (`d_update`, `optimizer`), the modules of Flax and the transformations around
both. Plans count bytes by it, profiles seconds.
"""

import collections
import re
from typing import NamedTuple

from biggan_jax.planning.hlo import Computation, Instruction, Module

# Scopes of `jax.named_scope` in the training step.
UPDATES = ("d_update", "g_update")
ROLES = ("optimizer", "ema", "regularizer", "spectral_norm")
_PLAYERS = {"Generator": "generator", "Discriminator": "discriminator"}
# What JAX's own control flow adds between the names of modules.
_NO_MODULE = frozenset(
    ("cond", "while", "body", "body_fun", "cond_fun", "scan", "closed_call", "checkpoint", "remat",
     "rematted_computation", "custom_jvp_call", "custom_vjp_call", "shard_map", "pallas_call")
)  # fmt: skip
_PRODUCTS = ("convolution", "dot")
_NAME = re.compile(r"[A-Za-z_]\w*")
_OP_NAME = re.compile(r'op_name="([^"]*)"')
# Of instructions that XLA merged: what their names share, then the rest of each.
_MERGED = re.compile(r"((?:.*?/)?)\((.+:.+)\)")


class Place(NamedTuple):
    """A part of the training step.

    Attributes:
      update: 'd_update', 'g_update', or '' outside both.
      layer: path of the module, such as 'discriminator/block_0/conv1', or '' outside the players.
      direction: 'forward', 'backward' (recomputed activations included), one of ROLES, or 'other'
        for what is neither differentiated nor a layer's, such as latents.
    """

    update: str
    layer: str
    direction: str

    @property
    def name(self) -> str:
        """Update and layer in one, such as 'd_update/generator/block_3/bn1'."""
        return "/".join(part for part in (self.update, self.layer) if part) or "step"


NOWHERE = Place("", "", "other")


def place(op_name: str) -> Place:
    """Reads one `op_name`, such as 'jit(f)/d_update/transpose(jvp(Discriminator))/linear/dot'.

    Args:
      op_name: from an instruction's metadata; of several, joined by ';' or merged by XLA as
        'jit(f)/(d_update/ema/add:g_update/optimizer/mul)', the first with a layer counts.

    Returns:
      The part of the step; `NOWHERE` for a name that says nothing.
    """
    found = [_place(each) for name in op_name.split(";") for each in _apart(name)]
    return next((p for p in found if p.layer), next((p for p in found if p != NOWHERE), NOWHERE))


def _apart(op_name: str) -> list[str]:
    merged = _MERGED.fullmatch(op_name)
    return [merged[1] + rest for rest in merged[2].split(":")] if merged else [op_name]


def _place(op_name: str) -> Place:
    *scopes, _ = op_name.split("/")  # the last one is the primitive
    update, role, layer = "", "", []
    forward = backward = False
    for scope in scopes:
        *transforms, name = scope.rstrip(")").split("(")
        forward |= "jvp" in transforms
        backward |= "transpose" in transforms or name == "rematted_computation"
        base, _, method = name.partition(".")
        if "jit" in transforms:
            continue
        if name in UPDATES:
            update = name
        elif name in ROLES:
            role = name
        elif layer and method == "normalize":  # of `layers.SpectralModule`
            role = "spectral_norm"
        elif not layer and name in _PLAYERS:
            layer = [_PLAYERS[name]]
        elif layer and not method and _NAME.fullmatch(base) and not _no_module(base):
            layer.append(base)
    direction = "backward" if backward else "forward" if forward or layer else "other"
    return Place(update, "/".join(layer), role or direction)


def _no_module(name: str) -> bool:
    return name in _NO_MODULE or name.startswith("branch_")


def places(module: Module) -> dict[str, Place]:
    """The part of the step of every instruction that runs by itself.

    A fusion counts to the convolution or matrix product in it. One without a name of its own (a
    copy that the compiler added) counts to what most of the instructions fused into it say, then
    to where its inputs come from, then to its user.

    Args:
      module: of the compiled step.

    Returns:
      {name of the instruction: its part}.
    """
    found: dict[str, Place] = {}
    for name in module.scheduled:
        computation = module.computations[name]
        own = {k: _own(module, i) for k, i in computation.items()}
        for label, instruction in computation.items():
            if own[label] == NOWHERE:
                inputs = (own.get(o, NOWHERE) for o in instruction.operands)
                own[label] = next((p for p in inputs if p != NOWHERE), NOWHERE)
        for label, instruction in reversed(computation.items()):
            for o in instruction.operands:
                if own.get(o) == NOWHERE:
                    own[o] = own[label]
        found |= own
    return found


def _own(module: Module, instruction: Instruction) -> Place:
    fused: Computation = module.computations.get(dict(instruction.called()).get("calls", ""), {})
    if instruction.opcode == "fusion":
        # Its name is often that of what follows the product, such as the next batch norm.
        products = (_own(module, i) for i in fused.values() if i.opcode in _PRODUCTS)
        if found := next((p for p in products if p != NOWHERE), None):
            return found
    if found := _OP_NAME.search(instruction.attributes):
        here = place(found[1])
        if here != NOWHERE or instruction.opcode != "fusion":
            return here
    if instruction.opcode != "fusion":
        return NOWHERE
    votes = collections.Counter(_own(module, i) for i in fused.values())
    votes.pop(NOWHERE, None)
    return votes.most_common(1)[0][0] if votes else NOWHERE
