"""What `biggan plan` advises when a step does not fit: pasted behind the command, it works."""

import math
import re
import shlex

import jax
import pytest

from biggan_jax.config import config_file
from biggan_jax.parallel import sharding
from biggan_jax.planning import chips, plan, suggestions
from biggan_jax.training import build as build_lib
from tests import runs

TINY = tuple(x for x in runs.TINY[1:] if not x.startswith("--config.mesh"))
# name -> (overrides, topology, slices)
SITUATIONS = {
    "usual": ((), "v5e:2x4", 1),
    "four_devices": ((), "v4:2x2x1", 1),
    "one_device": ((), "v5e:1x1", 1),
    "two_slices": ((), "v4:2x2x1", 2),
    "one_axis": (("--config.mesh=(-1,)",), "v5e:2x4", 1),
    "named_mesh": (("--config.mesh=(8,1)",), "v5e:2x4", 1),
    "split_already": (("--config.mesh=(4,2)",), "v5e:2x4", 1),
    "ghost": (("--config.bn_group_size=16",), "v5e:2x2", 1),
    "parts": (("--config.accumulation_steps=2",), "v5e:2x2", 1),
    "narrow": (("--config.compute_dtype=bfloat16", "--config.remat=all"), "v5e:2x2", 1),
    "no_blocks": (("--config.model.name=dcgan", "--config.model.g_attention=()"), "v5e:2x2", 1),
}  # fmt: skip


def refused(overrides, topology, slices, arguments=0.4, temporaries=1.7):
    """(config, a result that needs these multiples of the HBM)."""
    config = config_file.load(runs.DIGITS, [*TINY, "--config.batch_size=64", *overrides])
    shape = chips.parse(topology)
    devices = shape.chips * slices * shape.chip.devices
    hbm = shape.chip.hbm_bytes
    unit = devices * config.accumulation_steps
    return config, {
        "fits": False,
        "hbm_bytes": hbm,
        "argument_bytes": int(arguments * hbm),
        "temporary_bytes": int(temporaries * hbm),
        "peak_bytes": int((arguments + temporaries) * hbm),
        "devices": devices,
        "slices": slices,
        "largest_batch_size": int(64 * 0.55 / temporaries) // unit * unit,
    }


def overrides_of(lines):
    """The overrides in the advice, as a shell hands them to the command."""
    return [w for line in lines for w in shlex.split(line) if w.startswith("--config.")]


LONGER = ("one_axis", "named_mesh", "split_already", "parts", "one_device", "two_slices")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.full] * (n in LONGER)) for n in SITUATIONS],
)
def test_every_override_builds(name):
    overrides, topology, slices = SITUATIONS[name]
    config, result = refused(overrides, topology, slices)
    found = overrides_of(suggestions.suggestions(config, result))
    assert len(found) >= 2, found
    for override in found:
        changed = config_file.load(
            runs.DIGITS, [*TINY, "--config.batch_size=64", *overrides, override]
        )
        assert changed.to_dict() != config.to_dict(), override
        plan.check(changed, chips.parse(topology), slices)
        mesh = sharding.make_mesh(changed.mesh, jax.devices()[: result["devices"]])
        assert mesh.size == result["devices"], override
        build_lib.train_step(changed, mesh)


def keys(name, **sizes):
    found = overrides_of(suggestions.suggestions(*refused(*SITUATIONS[name], **sizes)))
    return {re.match(r"--config\.([\w.]+)=", override)[1]: override for override in found}


def test_what_is_advised_when():
    assert keys("usual").keys() == {
        "batch_size", "accumulation_steps", "compute_dtype", "remat", "mesh",
    }  # fmt: skip
    assert keys("usual")["accumulation_steps"].endswith("=4")  # 1.7 in 0.55: 3 divides no batch
    assert keys("usual")["mesh"].endswith("=(-1,8)") and keys("one_axis")["mesh"].endswith("(-1,8)")
    assert keys("four_devices")["mesh"].endswith("=(-1,4)")
    assert keys("two_slices")["mesh"].endswith("=(-1,4)")
    assert keys("named_mesh")["mesh"].endswith("=(1,8)")
    assert "mesh" not in keys("split_already") and "mesh" not in keys("one_device")
    assert "mesh" not in keys("usual", arguments=0.2)  # the weights are not what is large
    # Four parts of 16 examples are the most that groups of 16 allow.
    assert keys("ghost")["accumulation_steps"].endswith("=4")
    assert "accumulation_steps" not in keys("ghost", temporaries=5)
    assert not keys("narrow").keys() & {"compute_dtype", "remat"}
    assert "remat" not in keys("no_blocks") and "compute_dtype" in keys("no_blocks")


def test_more_chips():
    """1.7 in 0.95 - 0.4; with a state that fills the memory no number of chips helps."""
    lines = suggestions.suggestions(*refused(*SITUATIONS["usual"]))
    assert lines[0].startswith("it needs 33.07 GiB a chip, 15.75 GiB are there")
    assert lines[-1] == f"or {math.ceil(1.7 / 0.55)} times the chips for this batch"
    full = suggestions.suggestions(*refused(*SITUATIONS["usual"], arguments=1.0))
    assert not any("times the chips" in line for line in full)


def test_a_step_that_fits_needs_no_advice():
    config, result = refused((), "v5e:2x4", 1)
    assert suggestions.suggestions(config, result | {"fits": True}) == []
