#!/usr/bin/env bash
# An MLflow server over PostgreSQL, with artifacts on shared storage: see tracking_server.md.
#
#   export GENMIX_DATABASE=/var/lib/me/mlflow-database GENMIX_ARTIFACTS=/shared/me/mlartifacts
#   tracking_server.sh init      # once: a database with a password of its own
#   tracking_server.sh start     # PostgreSQL, and the server in the foreground
#   tracking_server.sh stop      # PostgreSQL
set -euo pipefail

: "${GENMIX_DATABASE:?set it to a folder on a local disk of this machine, for the database}"
host=${GENMIX_TRACKING_HOST:-127.0.0.1}
port=${GENMIX_TRACKING_PORT:-5000}
# the password stands in this file (mode 600), on no command line and in no address
export PGPASSFILE="$GENMIX_DATABASE.pgpass"
export PGHOST="$GENMIX_DATABASE" PGUSER=mlflow

need() {
    for command in "$@"; do
        if ! command -v "$command" > /dev/null; then
            echo "'$command' is not found; PostgreSQL's programs are often in /usr/lib/postgresql/VERSION/bin." >&2
            exit 2
        fi
    done
}

# The database answers on a socket in its own folder, to this machine's user alone, and on no network.
start_database() {
    pg_ctl --pgdata="$GENMIX_DATABASE" --log="$GENMIX_DATABASE/log.txt" --wait \
        --options="-c listen_addresses='' -c unix_socket_directories='$GENMIX_DATABASE'" start
}

stop_database() {
    pg_ctl --pgdata="$GENMIX_DATABASE" --wait --mode=fast stop
}

init() {
    need initdb pg_ctl createdb od
    if [ -e "$GENMIX_DATABASE" ]; then
        echo "$GENMIX_DATABASE exists; 'start' starts it, or name another folder." >&2
        exit 2
    fi
    local password_file="$GENMIX_DATABASE.password"
    mkdir -p "$(dirname "$GENMIX_DATABASE")"
    (
        umask 077
        head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$password_file"
        echo "*:*:*:mlflow:$(cat "$password_file")" > "$PGPASSFILE"
    )
    initdb --pgdata="$GENMIX_DATABASE" --username=mlflow --pwfile="$password_file" --auth=scram-sha-256 --encoding=UTF8
    rm "$password_file"
    start_database
    createdb mlflow
    stop_database
}

start() {
    need pg_ctl mlflow
    : "${GENMIX_ARTIFACTS:?set it to a folder for the artifacts}"
    mkdir -p "$GENMIX_ARTIFACTS"
    pg_ctl --pgdata="$GENMIX_DATABASE" status > /dev/null || start_database
    exec mlflow server \
        --backend-store-uri "postgresql+psycopg2://mlflow@/mlflow?host=$GENMIX_DATABASE" \
        --artifacts-destination "$GENMIX_ARTIFACTS" \
        --host "$host" --port "$port" ${GENMIX_ALLOWED_HOSTS:+--allowed-hosts "$GENMIX_ALLOWED_HOSTS"}
}

case "${1:-}" in
    init) init ;;
    start) start ;;
    stop) stop_database ;;
    *)
        echo "usage: tracking_server.sh init|start|stop" >&2
        exit 2
        ;;
esac
