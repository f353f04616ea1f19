"""One of two processes that keep the best of states whose arrays lie on both of them."""

import sys
import types

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from biggan_jax.storage import best


def state_of(value: float):
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    part = lambda index: np.full((8, 2), value, np.float32)[index]
    w = jax.make_array_from_callback((8, 2), sharding, part)
    network = types.SimpleNamespace(variables={"params": {"w": w}})
    return types.SimpleNamespace(generator=network, ema=network, discriminator=network, averages={})


def main(port: str, process: int, workdir: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    fids = [9.0, 10.0, float("nan"), 8.0, 8.0]
    kept = [best.keep(workdir, k, state_of(k), {}, {"fid": fid}) for k, fid in enumerate(fids)]
    assert kept == [True, False, False, True, False], kept
    print("done")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
