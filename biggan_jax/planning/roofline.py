"""What one run of a compiled program costs a chip, and the least time that it can take.

References:
  Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model".
"""

from typing import Any

from jax.sharding import Mesh

from biggan_jax.planning import costs as costs_lib
from biggan_jax.planning import hlo
from biggan_jax.planning.chips import Topology


def costs(
    module: hlo.Module, mesh: Mesh, topology: Topology, slices: int, reduced: int
) -> dict[str, Any]:
    """FLOPs, traffic and collectives per chip, and the roofline's lower bound of the time.

    Args:
      module: the compiled program of one device.
      mesh: its devices.
      topology: of one slice.
      slices: how many.
      reduced: bytes per chip that are summed over all chips, as predicted.

    Returns:
      A part of what `plan.plan` returns.
    """
    chip = topology.chip
    n = chip.devices
    collectives = costs_lib.collectives(module)
    for row in collectives.values():
        row["bytes"] *= n
    flops = n * costs_lib.flops(module)
    moved = n * costs_lib.hbm_bytes(module)
    sent = n * costs_lib.wire_bytes(module, mesh.size)
    seconds = {
        "compute": flops / chip.flops,
        "hbm": moved / chip.hbm_bandwidth,
        "ici": sent / chip.ici_bandwidth,
    }
    if slices > 1 and chip.dcn_bandwidth is not None:
        # At best a slice reduces among its own chips first, and each then carries its share.
        share = 2 * (slices - 1) / slices * reduced / topology.chips
        seconds["dcn"] = share / chip.dcn_bandwidth
    expected = {"all-reduce"}
    # Several slices reduce inside each one, then across, and gather the parts.
    if dict(mesh.shape).get("fsdp", 1) > 1 or slices > 1:
        expected |= {"all-gather", "reduce-scatter"}
    return {
        "flops_per_chip": flops,
        "bytes_per_chip": moved,
        "collectives": collectives,
        "unexpected_collectives": sorted(collectives.keys() - expected),
        "ici_bytes_per_chip": sent,
        "seconds": seconds,
        "bound_by": max(seconds, key=seconds.get),
        "step_seconds_lower_bound": max(seconds.values()),
        "unknown_loops": len(module.unknown_loops),
    }
