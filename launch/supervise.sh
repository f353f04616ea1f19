#!/usr/bin/env bash
# Keeps a training command going on this machine: starts it again when it ends unfinished.
#
#   launch/supervise.sh start DIR COMMAND [ARGUMENT ...]   in the background, output into DIR/log
#   launch/supervise.sh run DIR COMMAND [ARGUMENT ...]     in the foreground
#   launch/supervise.sh status DIR                         one line; exit code 0 while it runs
#   launch/supervise.sh stop DIR                           SIGTERM: it saves and is left stopped
#
# Exit code 75 (saved, unfinished) always starts it again. Code 1 and death by a signal (a lost
# peer, a full disk, a crash) do so at most SUPERVISE_FAILURES times in a row (5), one that lasted
# SUPERVISE_GOOD_SECONDS (3600) not counted. 0, 2 (bad input) and 130 (Ctrl-C) are final.
set -euo pipefail

usage() {
  echo "usage: launch/supervise.sh start|run DIR COMMAND [ARGUMENT ...]; status|stop DIR" >&2
  exit 2
}

say() { echo "$(date '+%F %T') supervise: $*" >&2; }

# A run, or an orphan of one, holds this lock on descriptor 9 as long as it lives.
take_lock() {
  exec 9>>"$dir/lock"
  flock --nonblock 9 || {
    echo "$HOSTNAME: a run is alive (pid $(cat "$dir/pid" 2>/dev/null || echo unknown)); stop it first" >&2
    exit 1
  }
}

# libtpu lets one process use the TPU and holds a POSIX lock on this file meanwhile.
refuse_taken_tpu() {
  local file=${LIBTPU_LOCKFILE:-/tmp/libtpu_lockfile} holder
  [[ -e $file ]] || return 0
  holder=$(awk -v inode="$(stat -c %i "$file")" \
    '$2 == "POSIX" { n = split($6, part, ":"); if (part[n] == inode) { print $5; exit } }' /proc/locks)
  [[ -z $holder ]] || {
    echo "$HOSTNAME: process $holder holds the TPU ($file); end it first" >&2
    exit 1
  }
}

supervise() {
  local code now failures=0 began child='' stopping='' signalled=''
  trap 'stopping=1 signalled=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM
  trap 'stopping=1 signalled=1; [[ -z $child ]] || kill -INT "$child" 2>/dev/null || true' INT
  while true; do
    began=$SECONDS code=''
    "$@" &
    child=$!
    echo "$$ $child" >"$dir/pid"
    [[ -z $stopping ]] || kill -TERM "$child" 2>/dev/null || true # it came before the child
    while true; do # a trapped signal ends `wait` before the child has ended
      signalled='' now=0
      wait "$child" || now=$?
      [[ $now -eq 127 && -n $code ]] || code=$now
      [[ -n $signalled ]] || break
    done
    child=''
    ((SECONDS - began < ${SUPERVISE_GOOD_SECONDS:-3600})) || failures=0
    case $code in
      0) say "finished" ;;
      2 | 126 | 127 | 130) say "exit code $code is final" ;;
      *)
        [[ $code -eq 75 ]] || failures=$((failures + 1))
        if [[ -n $stopping || -e $dir/stop ]]; then
          say "stopped (exit code $code); the same command continues"
        elif ((failures >= ${SUPERVISE_FAILURES:-5})); then
          say "exit code $code, failure $failures in a row: given up; the same command continues"
        else
          say "exit code $code: starting again from the last checkpoint"
          sleep "${SUPERVISE_PAUSE:-5}" 9>&- & # in the background: a stop does not wait for it
          wait $! || true
          [[ -n $stopping || -e $dir/stop ]] || continue
        fi
        ;;
    esac
    echo "$code" >"$dir/exit_code"
    exit "$code"
  done
}

status() {
  local pids='' code=''
  mkdir -p "$dir"
  [[ ! -e $dir/pid ]] || read -r pids <"$dir/pid"
  if ! flock --nonblock "$dir/lock" true; then
    echo "$HOSTNAME: running (pid ${pids:-unknown}); $(tail -n 1 "$dir/log" 2>/dev/null || true)"
    return 0
  fi
  [[ ! -e $dir/exit_code ]] || read -r code <"$dir/exit_code"
  case $code in
    0) echo "$HOSTNAME: finished" ;;
    '') echo "$HOSTNAME: not running" ;;
    *) echo "$HOSTNAME: ended with exit code $code; $(tail -n 1 "$dir/log" 2>/dev/null || true)" ;;
  esac
  return 1
}

stop() {
  local child='' told='' waited=0
  if [[ ! -e $dir/lock ]] || flock --nonblock "$dir/lock" true; then
    echo "$HOSTNAME: nothing is running"
    return 0
  fi
  touch "$dir/stop"
  until flock --nonblock "$dir/lock" true; do
    [[ ! -e $dir/pid ]] || read -r _ child <"$dir/pid"
    if [[ $child != "$told" ]]; then # once to each: a second signal would insist
      kill -TERM "$child" 2>/dev/null || true
      told=$child
    fi
    ((waited < ${SUPERVISE_STOP_SECONDS:-600})) || {
      echo "$HOSTNAME: still saving after $waited s (pid $child)" >&2
      return 1
    }
    sleep 1
    waited=$((waited + 1))
  done
  echo "$HOSTNAME: stopped"
}

[[ $# -ge 2 ]] || usage
action=$1 dir=$2
shift 2
case $action in
  start | run)
    [[ $# -ge 1 ]] || usage
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd)
    take_lock
    refuse_taken_tpu
    rm -f "$dir/exit_code" "$dir/pid" "$dir/stop"
    if [[ $action == run ]]; then
      supervise "$@"
    fi
    # A session of its own: it outlives the ssh connection. The lock goes with it.
    setsid "$0" _supervise "$dir" "$@" </dev/null >>"$dir/log" 2>&1 &
    echo "$HOSTNAME: started; output in $dir/log"
    ;;
  _supervise) supervise "$@" ;;
  status) status ;;
  stop) stop ;;
  *) usage ;;
esac
