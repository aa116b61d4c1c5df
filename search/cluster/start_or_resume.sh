#!/usr/bin/env bash
# Starts the search NAME in STORAGE, or goes on with it if it is there: what a job runs that may be restarted.
#
#   start_or_resume.sh STORAGE NAME [FLAGS OF EVERY ATTEMPT] -- [FLAGS OF A NEW SEARCH]
#
# Flags of every attempt: --address, --concurrency, --cpus-per-trial, --gpus-per-trial, --time-budget,
# --checkpoint-every, --stage-limit, --tracking-uri, --no-confirm. All others are fixed when a search starts.
# The process's id is written to the file named by GENMIX_PID_FILE, if that is set, for who wants to stop it in order.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: start_or_resume.sh STORAGE NAME [FLAGS OF EVERY ATTEMPT] -- [FLAGS OF A NEW SEARCH]" >&2
    exit 2
fi
storage=$1
name=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

every=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do
    every+=("$1")
    shift
done
[ $# -eq 0 ] || shift

if [ -n "${GENMIX_PID_FILE:-}" ]; then
    echo "$$" > "$GENMIX_PID_FILE"
fi
if [ -f "$storage/$name/search.json" ]; then
    exec python "$root/search/run.py" --storage "$storage" --resume "$name" "${every[@]}"
fi
# an attempt that was killed before it had recorded the search has left an empty folder
rmdir "$storage/$name" 2> /dev/null || true
exec python "$root/search/run.py" --storage "$storage" --name "$name" "${every[@]}" "$@"
