#!/usr/bin/env bash
# Trains a config on this machine and starts it again when it was stopped by SIGTERM (exit code 75).
#
#   launch/local.sh configs/digits.py runs/digits [--config.KEY=VALUE ...]
set -euo pipefail

if [[ $# -lt 2 || $1 == -h || $1 == --help ]]; then
  echo "usage: launch/local.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
make --quiet -C "$root" .venv
config=$1 workdir=$2
shift 2

while true; do
  code=0
  "$root/.venv/bin/biggan" train --config "$config" --workdir "$workdir" "$@" || code=$?
  [[ $code -eq 75 ]] || exit "$code"
  echo "stopped by SIGTERM; continuing from the last checkpoint" >&2
done
