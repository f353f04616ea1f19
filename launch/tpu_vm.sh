#!/usr/bin/env bash
# Trains on a Cloud TPU slice, or on several of them (multislice), from this machine.
#
#   launch/tpu_vm.sh create --name N --zone Z --accelerator-type v5litepod-256 --spot
#   launch/tpu_vm.sh install --name N --zone Z
#   launch/tpu_vm.sh train --name N --zone Z configs/biggan128.py gs://BUCKET/run [--config.KEY=VALUE ...]
#   launch/tpu_vm.sh status|tail|stop|delete --name N --zone Z
#
# docs/launching.md explains each step; --dry-run prints the commands of a step and runs none.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh COMMAND --name NAME --zone ZONE [OPTION ...]

  create    request the TPU (--accelerator-type TYPE; --spot or --reserved; --node-count SLICES)
  install   copy this tree to all workers (or clone --git URL) and install it there
  train     CONFIG WORKDIR [--config.KEY=VALUE ...]: start on all workers, in the background;
            exit code 75 and lost peers start again by themselves (launch/supervise.sh)
  status    of the request, and of the run on every worker
  tail      follow the log of one worker (--node 0 --worker 0)
  stop      SIGTERM on all workers: they save one step and stay stopped
  delete    give the TPU back (asks first; --quiet does not)

  --project P             instead of gcloud's default project
  --accelerator-type T    such as v4-128, v5litepod-256, v5p-128, v6e-256
  --runtime-version V     of the TPU software; by default the one of the generation
  --service-account A     e-mail; it needs roles/storage.objectAdmin on the bucket
  --no-queue              a TPU VM outside of the queue of requests (gcloud's `tpu-vm`)
  --git URL [--branch B]  install from there; the default is the working tree without ignored files
  --ssh-flag F            passed to ssh as it is; may be repeated
  --tunnel-through-iap, --internal-ip   how ssh reaches workers without an external address
  --dry-run               print every command, quoted for a shell; run none
TEXT
}

fail() {
  echo "tpu_vm.sh: $1" >&2
  exit 2
}

quote() { # one argument for any POSIX shell, quoted only where that is needed
  if [[ $1 =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
    printf '%s' "$1"
  else
    printf "'%s'" "${1//\'/\'\\\'\'}"
  fi
}

join() {
  local separator='' word
  for word in "$@"; do
    printf '%s' "$separator"
    quote "$word"
    separator=' '
  done
}

run() {
  if [[ -n $dry_run ]]; then
    join "$@"
    echo
  else
    "$@"
  fi
}

on_workers() { # NODE WORKER COMMAND: the command is a line for the worker's shell
  local where=("--worker=$2")
  [[ -n $no_queue ]] || where=("--node=$1" "${where[@]}")
  run "${tpus[@]}" ssh "$name" "${place[@]}" "${ssh[@]}" "${where[@]}" "--command=$3"
}

# On a worker everything is in ~/.biggan: src, log, lock. Nothing else there is touched.
remote=.biggan/src
supervise="$remote/launch/supervise.sh"

default_runtime() {
  case $1 in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "no runtime version is known for --accelerator-type $1: give --runtime-version" ;;
  esac
}

create() {
  [[ -n $accelerator ]] || fail "create needs --accelerator-type, such as v5litepod-256"
  [[ -z $spot || -z $reserved ]] || fail "--spot and --reserved: leave one of the two out"
  local version=$runtime
  [[ -n $version ]] || version=$(default_runtime "$accelerator")
  local options=("${place[@]}" "--accelerator-type=$accelerator")
  [[ -z $spot ]] || options+=(--spot)
  [[ -z $reserved ]] || options+=(--reserved)
  # Without this scope a worker may read buckets and not write them.
  options+=(--scopes=https://www.googleapis.com/auth/cloud-platform)
  [[ -z $account ]] || options+=("--service-account=$account")
  if [[ -n $no_queue ]]; then
    [[ $nodes -eq 1 ]] || fail "--no-queue makes one slice: --node-count $nodes needs the queue"
    run "${tpus[@]}" create "$name" "${options[@]}" "--version=$version"
    return
  fi
  options+=("--runtime-version=$version")
  if [[ $nodes -eq 1 ]]; then
    options+=("--node-id=$name")
  else
    options+=("--node-count=$nodes" "--node-prefix=$name")
  fi
  run "${tpus[@]}" create "$name" "${options[@]}"
}

install() {
  local get='tar -xzf biggan_jax.tar.gz -C .biggan/new; rm biggan_jax.tar.gz'
  if [[ -n $git_url ]]; then
    local clone=(git clone --quiet --depth 1)
    [[ -z $branch ]] || clone+=(--branch "$branch")
    get=$(join "${clone[@]}" "$git_url" .biggan/new)
  else
    local archive
    archive="${TMPDIR:-/tmp}/biggan_jax.tar.gz"
    run tar --exclude-vcs --exclude-vcs-ignores --exclude=./.venv --exclude=./runs \
      --exclude=__pycache__ -czf "$archive" -C "$root" .
    local copy=(--worker=all)
    [[ -n $no_queue ]] || copy=(--node=all "${copy[@]}")
    run "${tpus[@]}" scp "$archive" "$name:biggan_jax.tar.gz" "${place[@]}" "${scp[@]}" "${copy[@]}"
  fi
  # The images have Python 3.10: uv brings a newer one. What is installed already is kept.
  on_workers all all "set -e
if test -x $supervise && $supervise status .biggan; then echo 'stop the run first' >&2; exit 1; fi
rm -rf .biggan/new; mkdir -p .biggan/new
$get
if test -d $remote/.venv; then mv $remote/.venv .biggan/new/; fi
rm -rf $remote; mv .biggan/new $remote; cd $remote
python3 -m pip install --quiet --user --upgrade uv
test -d .venv || python3 -m uv venv --quiet --python 3.12 .venv
python3 -m uv pip install --quiet --python .venv/bin/python -e '.[tpu]'
echo \"\$HOSTNAME: installed\""
}

train() {
  [[ $# -ge 2 ]] || fail "train needs CONFIG and WORKDIR"
  local config=$1 workdir=$2 file
  shift 2
  [[ -f ${config%%:*} ]] || fail "${config%%:*}: no such file"
  file=$(realpath --relative-to="$root" "${config%%:*}")
  [[ $file != ../* ]] || fail "$config is not inside $root, which is what the workers get"
  [[ $config != *:* ]] || file="$file:${config#*:}"
  case $workdir in
    gs://?*/?* | /*) ;;
    *) fail "WORKDIR is $workdir: give gs://BUCKET/FOLDER, or an absolute path that all workers share" ;;
  esac
  # Workers that start again wait for each other longer than by default.
  on_workers all all "cd $remote && $(join launch/supervise.sh start .. \
    .venv/bin/biggan train --config "$file" --workdir "$workdir" --connect-timeout 600 "$@")"
}

status() {
  local field=state.state
  [[ -z $no_queue ]] || field=state
  run "${tpus[@]}" describe "$name" "${place[@]}" "--format=value($field)"
  on_workers all all "$supervise status .biggan || true"
}

delete() {
  local options=()
  [[ -n $no_queue ]] || options+=(--force)
  [[ -z $quiet ]] || options+=(--quiet)
  run "${tpus[@]}" delete "$name" "${place[@]}" "${options[@]}"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name='' zone='' project='' accelerator='' runtime='' account='' git_url='' branch=''
spot='' reserved='' no_queue='' dry_run='' quiet='' nodes=1 node=0 worker=0
ssh=() scp=() rest=()
[[ $# -ge 1 ]] || { usage >&2; exit 2; }
command=$1
shift
case $command in
  create | install | train | status | tail | stop | delete) ;;
  -h | --help) usage; exit 0 ;;
  *) fail "unknown command $command (see launch/tpu_vm.sh --help)" ;;
esac
while [[ $# -gt 0 ]]; do
  option=$1
  shift
  case $option in
    # --option VALUE and --option=VALUE are the same.
    --name | --zone | --project | --accelerator-type | --runtime-version | --service-account | \
      --git | --branch | --ssh-flag | --node-count | --node | --worker)
      [[ $# -gt 0 ]] || fail "$option needs a value"
      set -- "$option=$1" "${@:2}"
      ;;
    --name=*) name=${option#*=} ;;
    --zone=*) zone=${option#*=} ;;
    --project=*) project=${option#*=} ;;
    --accelerator-type=*) accelerator=${option#*=} ;;
    --runtime-version=*) runtime=${option#*=} ;;
    --service-account=*) account=${option#*=} ;;
    --git=*) git_url=${option#*=} ;;
    --branch=*) branch=${option#*=} ;;
    --ssh-flag=*) ssh+=("$option") scp+=("--scp-flag=${option#*=}") ;;
    --node-count=*) nodes=${option#*=} ;;
    --node=*) node=${option#*=} ;;
    --worker=*) worker=${option#*=} ;;
    --tunnel-through-iap | --internal-ip) ssh+=("$option") scp+=("$option") ;;
    --spot) spot=1 ;;
    --reserved) reserved=1 ;;
    --no-queue) no_queue=1 ;;
    --dry-run) dry_run=1 ;;
    --quiet) quiet=1 ;;
    -h | --help) usage; exit 0 ;;
    --config.* | --noconfig.* | --connect-timeout* | --heartbeat-timeout*) rest+=("$option") ;;
    -*) fail "unknown option $option (see launch/tpu_vm.sh --help)" ;;
    *) rest+=("$option") ;;
  esac
done
[[ -n $name ]] || fail "which TPU? give --name NAME"
[[ -n $zone ]] || fail "where is $name? give --zone ZONE, such as us-central2-b"
[[ $nodes =~ ^[1-9][0-9]*$ ]] || fail "--node-count is $nodes; set it to 1 or more slices"
[[ $command == train || ${#rest[@]} -eq 0 ]] || fail "$command takes no ${rest[0]}"
[[ -n $dry_run ]] || type gcloud >/dev/null 2>&1 || fail "there is no gcloud on the PATH: install \
the Google Cloud CLI, or look with --dry-run"
[[ -z $no_queue || " ${ssh[*]} " != *" --tunnel-through-iap "* ]] || fail "gcloud's tpu-vm has no \
--tunnel-through-iap: leave out --no-queue, or use --internal-ip"
place=("--zone=$zone")
[[ -z $project ]] || place+=("--project=$project")
tpus=(gcloud compute tpus queued-resources)
[[ -z $no_queue ]] || tpus=(gcloud compute tpus tpu-vm)

case $command in
  create | install | status | delete) "$command" ;;
  train) train "${rest[@]}" ;;
  tail) on_workers "$node" "$worker" "tail -n 50 -F .biggan/log" ;;
  stop) on_workers all all "$supervise stop .biggan" ;;
esac
