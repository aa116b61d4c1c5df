#!/usr/bin/env bash
# A search on several nodes of a Slurm cluster, in one allocation: see slurm.md.
#
#   export GENMIX_STORAGE=/shared/me/searches GENMIX_NAME=first
#   sbatch search/cluster/slurm.sh --gpus-per-trial 0.5 -- --space genmix --data /shared/me/images
#
# Before "--" stand flags of every attempt, after it those of a new search (start_or_resume.sh says which are which).
#SBATCH --job-name=genmix-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
#SBATCH --output=genmix-search-%j.log
set -euo pipefail

JOIN_SECONDS=300

# What must be set, checked before anything is started.
check_settings() {
    : "${GENMIX_STORAGE:?set it to a folder that all nodes share, for the searches}"
    : "${GENMIX_NAME:?set it to the name of the search}"
    : "${SLURM_JOB_ID:?this script is started by sbatch}"
    : "${SLURM_JOB_NODELIST:?this script is started by sbatch}"
    : "${SLURM_CPUS_PER_TASK:?give sbatch --cpus-per-task}"
    root=${GENMIX_ROOT:-${SLURM_SUBMIT_DIR:?set GENMIX_ROOT to the checkout of genmix-search}}
    if [ ! -f "$root/search/run.py" ]; then
        echo "$root is no checkout of genmix-search; submit from there, or set GENMIX_ROOT." >&2
        exit 2
    fi
    for command in python ray srun scontrol; do
        if ! command -v "$command" > /dev/null; then
            echo "'$command' is not found; activate the environment before sbatch." >&2
            exit 2
        fi
    done
}

# A token for this job alone: the nodes' processes take no task from anybody who does not have it.
make_token() {
    mkdir -p "$GENMIX_STORAGE"
    token="$GENMIX_STORAGE/.ray-token-$SLURM_JOB_ID"
    rm -f "$token"
    (umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token")
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token" RAY_USAGE_STATS_ENABLED=0
}

# One node of the Ray cluster, as a job step of its own on one node of the allocation; it ends with the step.
start_node() {
    local host=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$host" --cpus-per-task="$SLURM_CPUS_PER_TASK" --export=ALL \
        ray start "$@" --block --num-cpus="$SLURM_CPUS_PER_TASK" --temp-dir="$temporary" --disable-usage-stats &
    steps+=("$!")
}

start_head() {
    rm -rf "$temporary" # a job that is queued again finds the address of its earlier head there
    start_node "$1" --head --port=0 --include-dashboard=false
    # Ray chooses a free port; the head is on this machine, where batch scripts run, and has written its address here
    for ((second = 0; second < JOIN_SECONDS; second++)); do
        leave_if_stopped
        if [ -s "$temporary/ray_current_cluster" ]; then
            address=$(cat "$temporary/ray_current_cluster")
            return
        fi
        kill -0 "${steps[0]}" 2> /dev/null || break
        sleep 1
    done
    echo "The head did not start on $1; see above." >&2
    exit 1
}

start_worker() {
    start_node "$1" --address="$address"
}

# A search checks the nodes that are there when it starts: it starts when all are.
wait_for_nodes() {
    python - "$address" "$1" "$JOIN_SECONDS" <<'PYTHON' &
import logging, sys, time
import ray

address, wanted, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
deadline = time.monotonic() + seconds
while (found := sum(node["Alive"] for node in ray.nodes())) < wanted:
    if time.monotonic() > deadline:
        sys.exit(f"Only {found} of {wanted} nodes joined within {seconds} s; see above for the one that did not.")
    time.sleep(1)
PYTHON
    await_driver
    leave_if_stopped
    [ "$code" -eq 0 ] || exit "$code"
}

# Wait for what was started last, of which a stop signal tells at once, also one that came just before it was known.
await_driver() {
    driver=$!
    [ "$stopped" = no ] || stop_driver
    # a trapped signal ends 'wait' early; the search itself may take half a minute to stop
    code=0
    wait "$driver" || code=$?
    while kill -0 "$driver" 2> /dev/null; do
        code=0
        wait "$driver" || code=$?
    done
    driver=''
}

# End the job; near the time limit one that was stopped is queued again.
leave() {
    if [ "$again" = yes ] && [ "$code" -eq 143 ]; then
        echo "The time limit is near; the job is queued again and goes on with search '$GENMIX_NAME'."
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}

# A stop signal before the search runs ends the job as one does later.
leave_if_stopped() {
    if [ "$stopped" = yes ]; then
        code=143
        leave
    fi
}

# shellcheck disable=SC2329 # called by a trap
on_stop() {
    stopped=yes
    stop_driver
}

stop_driver() {
    if [ -n "$driver" ]; then
        kill -TERM "$driver" 2> /dev/null || true
    fi
}

# Shortly before the time limit Slurm sends USR1 to this script alone: stop in order, and queue again to go on.
# shellcheck disable=SC2329 # called by a trap
on_time_limit() {
    again=yes
    on_stop
}

# shellcheck disable=SC2329 # called by a trap
clean_up() {
    stop_driver
    for step in "${steps[@]}"; do
        kill -TERM "$step" 2> /dev/null || true
    done
    wait || true
    rm -rf "$token" "$temporary"
}

run_search() {
    GENMIX_PID_FILE='' bash "$root/search/cluster/start_or_resume.sh" \
        "$GENMIX_STORAGE" "$GENMIX_NAME" --address "$address" "$@" &
    await_driver
}

main() {
    check_settings
    steps=()
    driver=''
    stopped=no
    again=no
    code=1
    temporary="/tmp/genmix-ray-$SLURM_JOB_ID"
    token=''
    trap clean_up EXIT
    trap on_stop TERM INT
    trap on_time_limit USR1
    make_token
    local hosts
    mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
    start_head "${hosts[0]}"
    for host in "${hosts[@]:1}"; do
        start_worker "$host"
    done
    wait_for_nodes "${#hosts[@]}"
    run_search "$@"
    leave
}

main "$@"
