#!/usr/bin/env python3
"""FLOPs a second of a square bfloat16 product on the device of JAX: what it reaches at best.

  launch/matrix_peak.py [SIZE]

Prints one JSON object. Random numbers: products of zeros draw less power and clock higher.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp

CHAINED = 16  # products of one program, so that launching them costs nothing
ROUNDS = 8


def main(size: int) -> dict:
    """Times chained products; the best of `ROUNDS`."""
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)

    @jax.jit
    def products(a, b):
        for _ in range(CHAINED):
            a = (a @ b) / jnp.bfloat16(size**0.5)  # stays of size 1
        return a

    products(a, b).block_until_ready()
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        products(a, b).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "size": size,
        "flops_per_second": CHAINED * 2 * size**3 / min(seconds),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8192)))
