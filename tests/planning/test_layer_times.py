"""Traces of known durations, read as time by layer."""

import pytest
from jax.profiler import ProfileData

from biggan_jax.planning import hlo, layer_times, trace
from biggan_jax.planning.trace import Span

PROGRAM = "jit_train_step"
HLO = """\
HloModule jit_train_step, is_scheduled=true

%body (t: f32[4]) -> f32[4] {
  %t = f32[4]{0} parameter(0)
  ROOT %relu = f32[4]{0} maximum(%t, %t), metadata={op_name="d_update/jvp(Discriminator)/block_0/max"}
}

ENTRY %main (x: f32[4,4]) -> f32[4] {
  %x = f32[4,4]{1,0} parameter(0)
  %conv = f32[4]{0} convolution(%x, %x), metadata={op_name="d_update/transpose(jvp(Discriminator))/block_0/conv1/conv"}
  %gemm = f32[4]{0} custom-call(%x), custom_call_target="__cublas$gemm", metadata={op_name="g_update/Generator/linear/dot"}
  %adam = f32[4]{0} multiply(%conv, %gemm), metadata={op_name="g_update/optimizer/mul"}
  ROOT %loop = f32[4]{0} call(%adam), to_apply=%body
}
"""  # noqa: E501
EVENT = """
events {{ metadata_id: {id} offset_ps: {start}000 duration_ps: {length}000
  stats {{ metadata_id: 1 str_value: "{program}" }} stats {{ metadata_id: 2 str_value: "{op}" }}
  stats {{ metadata_id: 3 int64_value: {flow} }} }}"""
END = """
events {{ metadata_id: 2 offset_ps: {end}000 duration_ps: 9000
  stats {{ metadata_id: 4 int64_value: {flow} }} }}"""
METADATA = """
event_metadata { key: 1 value { id: 1 name: "event" } }
event_metadata { key: 2 value { id: 2 name: "end: event" } }
stat_metadata { key: 1 value { id: 1 name: "hlo_module" } }
stat_metadata { key: 2 value { id: 2 name: "hlo_op" } }
stat_metadata { key: 3 value { id: 3 name: "_p" } }
stat_metadata { key: 4 value { id: 4 name: "_c" } }
stat_metadata { key: 5 value { id: 5 name: "other" } }"""


def plane(name: str, line: str, *events: str) -> str:
    return f'planes {{ name: "{name}" {METADATA} lines {{ name: "{line}" {"".join(events)} }} }}'


def event(start: int, length: int, op: str, flow: int = 0, program: str = PROGRAM) -> str:
    return EVENT.format(id=1, start=start, length=length, op=op, flow=flow, program=program)


def read(*planes: str) -> list[Span]:
    return sorted(trace.spans(ProfileData.from_text_proto("\n".join(planes)), PROGRAM))


def test_a_host_runs_an_instruction_until_its_last_tile_is_done():
    host = plane(
        "/host:CPU", "thread", event(100, 10, "conv", 7), event(120, 30, "adam", 8),
        event(500, 9, "conv", 9, "jit_other"), END.format(end=180, flow=7),
    )  # fmt: skip
    assert read(host) == [Span(100, 180, "conv"), Span(120, 150, "adam")]


def test_the_first_accelerator_counts_and_not_the_host():
    unnamed = event(300, 5, "").replace('metadata_id: 2 str_value: ""', "metadata_id: 5").replace(
        f'metadata_id: 1 str_value: "{PROGRAM}"', "metadata_id: 5"
    )  # fmt: skip
    got = read(
        plane("/host:CPU", "thread", event(0, 999, "conv")),
        plane("/device:GPU:1", "Stream #7", event(0, 999, "conv")),
        plane("/device:GPU:0", "Stream #7", event(100, 10, "conv"), unnamed),
        plane("/device:GPU:0 derived", "XLA Ops", event(0, 999, "conv")),
    )
    assert got == [Span(100, 110, "conv"), Span(300, 305, trace.UNNAMED)]
    assert read(plane("/device:GPU:0", "Stream #7", unnamed)) == []  # nothing has a name
    assert read(plane("/device:TPU:0", "XLA Ops", event(0, 1, "conv"))) == []


def test_instructions_that_run_at_once_share_the_time():
    spans = [
        Span(0, 8, "a"),
        Span(2, 8, "b"),
        Span(4, 8, "a"),
        Span(20, 24, "b"),
        Span(30, 30, "c"),
    ]
    got = trace.seconds(spans)
    a, b = 2 + 1 + 4 * 2 / 3, 1 + 4 / 3 + 4
    assert got == pytest.approx({"a": a * 1e-9, "b": b * 1e-9})
    assert sum(got.values()) == pytest.approx(12e-9)  # in which anything ran


def test_a_loop_counts_where_nothing_of_it_runs():
    spans = [Span(0, 10, "loop"), Span(2, 5, "relu"), Span(7, 10, "relu")]
    got = trace.seconds(spans, frozenset({"loop"}))
    assert got == pytest.approx({"loop": 4e-9, "relu": 6e-9})


def test_rows_add_up():
    module = hlo.Module(HLO)
    assert list(module.containers()) == ["loop"]
    seconds = {"conv": 4.0, "gemm": 3.0, "adam": 2.0, "relu": 1.5, "loop": 0.5, "strange": 0.25}
    rows = layer_times.rows(module, seconds, 12.0)
    assert [tuple(row.values()) for row in rows] == [
        ("d_update/discriminator", "block_0/conv1", "backward", "convolution", 4.0),
        ("g_update/generator", "linear", "forward", "dot", 3.0),
        ("g_update", "", "optimizer", "elementwise", 2.0),
        ("d_update/discriminator", "block_0", "forward", "elementwise", 1.5),
        ("step", "", "other", "idle", 0.75),
        ("g_update", "", "optimizer", "control", 0.5),
        ("step", "", "other", "unknown", 0.25),
    ]
    assert list(rows[0]) == ["part", "layer", "direction", "kind", "seconds"]
    result = {"layers": rows, "profiled_step_seconds": 12.0, "busy_cores": 1.25}
    lines = [line.split() for line in layer_times.text(result).splitlines()]
    first = [
        "4000.000",
        "33.3",
        "convolution",
        "backward",
        "d_update/discriminator",
        "block_0/conv1",
    ]
    assert lines[2] == first and "1.25 cores busy" in layer_times.text(result)
    assert ["5500.000", "45.8", "d_update/discriminator"] in lines
    assert ["2500.000", "20.8", "optimizer"] in lines
