#!/usr/bin/env bash
# Times BigGAN at 128 and 256 pixels in bfloat16 on one GPU, and BigGAN-PyTorch beside it.
#
#   launch/bench_gpu.sh OUT.json [--peer DIR] [--resolutions 128,256] [--batches 256,128]
#                       [--timeout SECONDS] [--limit SECONDS] [--tiny]
#
# Needs no installation of this package: a Python (PYTHON=..., python3 by default) with jax for
# CUDA, flax, optax and ml_collections, and with torch for --peer DIR, a checkout of BigGAN-PyTorch.
# Every figure is taken in a process of its own and written into OUT.json at once; a run that was
# cut off goes on where it was. All of it takes about half an hour on an H100 for one resolution,
# most of which is compilation, one batch size in our step and the peer's fastest setting nine
# minutes: --batches in place of the search, --limit for what may be spent. --tiny takes minutes on a CPU and checks that all of it runs there.
# Exit codes: 0 done, 1 something could not be measured (OUT.json says what), 2 bad usage.
set -euo pipefail

python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ $# -lt 1 || $1 == -h || $1 == --help || $1 == --[a-z]* ]]; then
  echo "usage: launch/bench_gpu.sh OUT.json [--peer DIR] [--resolutions 128,256]" \
    "[--batches 256,128] [--timeout SECONDS] [--limit SECONDS] [--tiny]" >&2
  exit 2
fi
if ! missing=$("$python" -c 'import jax, flax, optax, ml_collections' 2>&1); then
  echo "bench_gpu: $python: ${missing##*$'\n'}; set PYTHON to one that has jax, flax, optax and" \
    "ml_collections" >&2
  exit 2
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
# The default of 0.75 would leave a quarter of the memory to nobody.
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}
exec "$python" "$root/launch/bench_gpu.py" "$@"
