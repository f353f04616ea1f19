"""Names that XLA keeps of a step's instructions, as parts of the step."""

import dataclasses

import pytest

from biggan_jax.planning import attribution, breakdown, hlo
from biggan_jax.planning.attribution import NOWHERE, Place

LOOP = "jit(train_step)/while/body/closed_call"


@pytest.mark.parametrize(
    ("op_name", "expected"),
    [
        (
            f"{LOOP}/d_update/transpose(jvp(Discriminator))/block_0/conv1/cond/branch_0_fun/conv",
            Place("d_update", "discriminator/block_0/conv1", "backward"),
        ),
        (
            f"{LOOP}/d_update/Generator/block_3/bn1/norm/jit(norm)/reduce_sum",
            Place("d_update", "generator/block_3/bn1/norm", "forward"),
        ),
        (
            "jit(f)/g_update/jvp(Generator)/attention_64/nqk,nkd->nqd/dot_general",
            Place("g_update", "generator/attention_64", "forward"),
        ),
        (
            "jit(f)/g_update/jvp(Generator)/block_0/checkpoint/rematted_computation/conv1/conv",
            Place("g_update", "generator/block_0/conv1", "backward"),
        ),
        (
            "g_update/transpose(jvp(Generator))/rgb/rgb.normalize/dot_general",
            Place("g_update", "generator/rgb", "spectral_norm"),
        ),
        ("jit(f)/g_update/optimizer/mul", Place("g_update", "", "optimizer")),
        ("jit(f)/g_update/jvp()/reduce_sum", Place("g_update", "", "forward")),
        (
            "jit(f)/g_update/transpose(jvp())/pad;jit(f)/g_update/jvp(Discriminator)/embed/add",
            Place("g_update", "discriminator/embed", "forward"),
        ),
        # Of two updates in one all-reduce, as XLA writes it: the first one has the layer.
        (
            "jit(f)/(g_update/jvp(Generator)/bn_out/norm/reduce_sum:"
            "d_update/transpose(d_update)/jvp(Discriminator)/linear/dot_general)",
            Place("g_update", "generator/bn_out/norm", "forward"),
        ),
        (
            "jit(f)/d_update/(optimizer/mul:Discriminator/linear/add)",
            Place("d_update", "discriminator/linear", "forward"),
        ),
        ("(jit(_normal)/erf_inv:jit(f)/mul)", NOWHERE),
        ("jit(f)/jit(_normal)/erf_inv", NOWHERE),
        ("add.36", NOWHERE),
    ],
)
def test_place(op_name, expected):
    assert attribution.place(op_name) == expected


def test_the_name_joins_update_and_layer():
    assert attribution.place("d_update/Generator/rgb/add").name == "d_update/generator/rgb"
    assert attribution.place("d_update/ema/add").name == "d_update" and NOWHERE.name == "step"


def test_instructions_without_a_name_follow_their_neighbours():
    conv, relu = "jit(f)/Generator/conv/dot", "jit(f)/Generator/bn/jit(relu)/max"
    module = hlo.Module(f"""\
%fused (a: f32[4,4]) -> f32[4,4] {{
  %a = f32[4,4]{{1,0}} parameter(0)
  %p = f32[4,4]{{1,0}} dot(%a, %a), metadata={{op_name="{conv}"}}
  %q = f32[4,4]{{1,0}} add(%p, %p), metadata={{op_name="{conv}"}}
  ROOT %r = f32[4,4]{{1,0}} maximum(%q, %q), metadata={{op_name="{relu}"}}
}}

ENTRY %main (x: f32[4,4]) -> f32[4,4] {{
  %x = f32[4,4]{{1,0}} parameter(0)
  %before = f32[4,4]{{0,1}} copy(%x)
  %fusion = f32[4,4]{{1,0}} fusion(%before), kind=kLoop, calls=%fused
  ROOT %after = f32[4,4]{{0,1}} copy(%fusion)
}}
""")
    places = attribution.places(module)
    layer = Place("", "generator/conv", "forward")
    assert [places[name] for name in ("before", "fusion", "after")] == [layer] * 3
    array = 4 * 4 * 4
    later = module.computations["main"]["fusion"]
    named = dataclasses.replace(
        later, attributes=f'{later.attributes}, metadata={{op_name="{relu}"}}'
    )
    module.computations["main"]["fusion"] = named
    assert attribution.places(module)["fusion"] == layer  # of the product, not of the name
    assert breakdown.rows(module, 2) == [
        {"layer": "generator/conv", "direction": "forward", "kind": "copy", "bytes": 8 * array},
        {"layer": "generator/conv", "direction": "forward", "kind": "product", "bytes": 4 * array},
    ]
