"""What is read from HLO text: multiplied loops, collectives; FLOPs and traffic as XLA counts."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from biggan_jax.planning import costs as costs_lib
from biggan_jax.planning import hlo

# As the TPU compiler writes it: tiled layouts, on-chip memory S(1), a loop without a known length,
# asynchronous pairs, groups as a mesh, as a list and as an iota.
TEXT = """\
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8,4]{1,0})->f32[8,4]{1,0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%body (p: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %p = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8,4]{1,0:T(8,128)} get-tuple-element(%p), index=1
  %all-reduce.1 = (f32[8,4]{1,0:T(8,128)}, /*index=1*/f32[]{:T(128)S(1)}) all-reduce(%x, %x), \
channel_id=1, replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  %y = f32[8,4]{1,0:T(8,128)} get-tuple-element(%all-reduce.1), index=0
  ROOT %t = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) tuple(%i, %y)
}

%condition (p.1: (s32[], f32[8,4])) -> pred[] {
  %p.1 = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %limit = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (x.1: f32[8,4]) -> f32[8,4] {
  %x.1 = f32[8,4]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) tuple(%zero, %x.1)
  %while = (s32[]{:T(128)}, f32[8,4]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %z = f32[8,4]{1,0:T(8,128)} get-tuple-element(%while), index=1
  %ar-start = f32[8,4]{1,0} all-reduce-start(%z), replica_groups={{0,1},{2,3}}, to_apply=%add
  %ar-done = f32[8,4]{1,0} all-reduce-done(%ar-start)
  %ag-start = (f32[8,4]{1,0}, f32[16,4]{1,0}) all-gather-start(%ar-done), \
replica_groups=[4,2]<=[8], dimensions={0}
  %ag-done = f32[16,4]{1,0} all-gather-done(%ag-start)
  %near = (bf16[16,4]{1,0:S(1)}, bf16[16,4]{1,0}, u32[]{:S(2)}) copy-start(%ag-done)
  ROOT %out = f32[8,4]{1,0} slice(%ag-done), slice={[0:8], [0:4]}
}
"""


def compiled(f, *args):
    """(module, XLA's own counts) of a function compiled for this CPU."""
    c = jax.jit(f).lower(*args).compile()
    return hlo.Module(c.as_text()), c.cost_analysis()


def test_collectives_of_a_text():
    module = hlo.Module(TEXT)
    assert module.entry == "main" and module.runs["body"] == 3 and not module.unknown_loops
    array = 8 * 4 * 4
    assert costs_lib.collectives(module) == {
        "all-reduce": {"count": 3 + 1, "bytes": 3 * 2 * array + array},
        "all-gather": {"count": 1, "bytes": 2 * array},
    }
    sent = 3 * 2 * array * 2 * 3 / 4 + array * 2 * 1 / 2 + 2 * array * 1 / 2
    assert costs_lib.wire_bytes(module, 8) == pytest.approx(sent)


def test_traffic_of_a_text_leaves_out_on_chip_memory():
    array = 8 * 4 * 4
    loop = 2 * array + array  # the scalar lies in S(1)
    condition = 4 + 4 + 1
    entry = 2 * array  # all-reduce-start
    entry += array + 2 * array  # all-gather-start reads one and writes two
    entry += 16 * 4 * 2  # copy-start: only its source lies in HBM
    entry += 2 * array + array  # slice
    assert costs_lib.hbm_bytes(hlo.Module(TEXT)) == 3 * (loop + condition) + entry


def test_a_loop_of_unknown_length_is_reported():
    text = TEXT.replace("%limit = s32[]{:T(128)} constant(3)",
                        "%limit = s32[]{:T(128)} get-tuple-element(%p.1), index=0")  # fmt: skip
    module = hlo.Module(text)
    assert module.unknown_loops == {"while"} and module.runs["body"] == 1
    known = 'while(%start), backend_config={"known_trip_count":{"n":"5"}}, '
    assert hlo.Module(text.replace("while(%start), ", known)).runs["body"] == 5


@pytest.mark.parametrize(
    ("stride", "padding", "base", "window"),
    [
        (1, "SAME", 1, 1),
        (2, ((1, 1), (1, 1)), 1, 1),
        (1, ((0, 1), (1, 0)), 1, 1),
        (1, ((2, 2), (2, 2)), 2, 1),
        (1, ((1, 1), (1, 1)), 1, 2),
    ],
)
def test_convolution_flops_are_those_of_xla(stride, padding, base, window):
    def conv(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, (base, base), (window, window),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    x, kernel = jnp.ones((2, 8, 8, 8)), jnp.ones((3, 3, 8, 16))
    module, xla = compiled(conv, x, kernel)
    assert costs_lib.flops(module) == pytest.approx(xla["flops"]) and xla["flops"] > 5e4


def test_a_product_written_as_a_convolution():
    """As the TPU compiler writes matrix products: without axes and without a window."""
    text = """ENTRY %main (x: f32[8,32], w: f32[32,4]) -> f32[8,4] {
  %x = f32[8,32]{1,0} parameter(0)
  %w = f32[32,4]{1,0} parameter(1)
  ROOT %y = f32[8,4]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}"""
    assert costs_lib.flops(hlo.Module(text)) == 2 * 8 * 32 * 4


def test_scanned_products_count_every_time():
    w = jnp.ones((32, 32))

    def f(x, length):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, length=length)[0]

    module, xla = compiled(lambda x: f(x, 7), jnp.ones((16, 32)))
    assert costs_lib.flops(module) == 7 * 2 * 16 * 32 * 32
    assert xla["flops"] < 2 * 2 * 16 * 32 * 32 + 1e4  # XLA counts the body once
    assert not module.unknown_loops
    traffic = [costs_lib.hbm_bytes(compiled(lambda x, n=n: f(x, n), jnp.ones((16, 32)))[0])
               for n in (7, 14)]  # fmt: skip
    assert traffic[1] > 1.9 * traffic[0]


def test_traffic_is_that_of_xla():
    def f(x, w):
        return jnp.tanh(x @ w) - x.mean(0)[None]

    module, xla = compiled(f, jnp.ones((256, 64)), jnp.ones((64, 64)))
    assert costs_lib.hbm_bytes(module) == pytest.approx(xla["bytes accessed"], rel=0.02)


def test_a_gathered_table_counts_by_the_rows_that_are_read():
    table = jnp.ones((1000, 64))

    def rows_of(table, ids):
        return jnp.tanh(jnp.take(table, ids, axis=0, mode="clip"))

    module, _ = compiled(rows_of, table, jnp.arange(32, dtype=jnp.int32))
    rows = 32 * 64 * 4
    assert 2 * rows <= costs_lib.hbm_bytes(module) < 8 * rows < table.nbytes


def test_a_branch_counts_as_often_as_it_is_taken():
    """Such as the penalties of one update in four; without a share both branches count."""
    w = jnp.ones((32, 32))

    def f(x, taken):
        return lax.scan(
            lambda x, _: (lax.cond(taken, lambda: jnp.tanh(x @ w) @ w, lambda: x @ w), None),
            *(x, None),
            length=3,
        )[0]

    text = jax.jit(f).lower(jnp.ones((8, 32)), True).compile().as_text()
    product = 2 * 8 * 32 * 32
    for share, products in ((None, 3), (0.25, 1.25), (1.0, 2), (0.0, 1)):
        found = costs_lib.flops(hlo.Module(text, share))
        assert found == pytest.approx(3 * products * product), share


def test_collectives_of_a_branch_that_is_seldom_taken():
    """Whole numbers; of the mean run, and once at least."""
    text = TEXT.replace("%while = ", "%one = pred[] constant(true)\n  %while = ").replace(
        "while(%start), condition=%condition, body=%body",
        "conditional(%one, %start, %start), true_computation=%body, false_computation=%idle",
    )
    text = text.replace("%condition (p.1", "%idle (p.1")
    module = hlo.Module(text, 0.25)
    assert module.runs["body"] == 0.25 and module.runs["idle"] == 0.75
    array = 8 * 4 * 4
    wanted = {"count": 1, "bytes": 2 * array // 4 + array}
    assert costs_lib.collectives(module)["all-reduce"] == wanted
