#!/usr/bin/env bash
# Shows that the containers work together (`make docker`): builds the image, starts docker-compose.yml as a project of
# its own, has a task done in it, and removes what it started, records too. Arguments: services, default all.
set -euo pipefail
cd "$(dirname "$0")/../.."

unavailable() {
    echo "make docker: nothing was checked: $1" >&2
    exit 7
}

command -v docker > /dev/null || unavailable "the command docker is not installed"
docker version > /dev/null 2>&1 || unavailable "no Docker engine answers; start it, or name it with DOCKER_HOST"
docker compose version > /dev/null 2>&1 || unavailable "docker has no compose (the plugin docker-compose, version 2)"

compose() {
    docker compose --project-name callboard-end-to-end "$@"
}

end() {
    code=$?
    if [ "$code" -ne 0 ]; then
        compose ps --all >&2 || true
        compose logs --tail 50 worker broker >&2 || true
        echo "make docker: failed; the lines above are the ends of the containers' logs" >&2
    fi
    compose down --volumes --timeout 60 || true
    exit "$code"
}
trap end EXIT

compose up --build --detach --wait --wait-timeout 300 "$@"
published=$(compose exec -T worker callboard publish researcher 'Improve this repository' \
    --repository examples/sample_shop --wait --timeout 300 --json)
workflow=$(sed -n 's/.*"workflow": *"\([^"]*\)".*/\1/p' <<< "$published")
compose exec -T worker callboard show "$workflow"
compose exec -T worker python -c '
import urllib.request
metrics = urllib.request.urlopen("http://127.0.0.1:8000/metrics", timeout=5).read().decode()
assert "callboard_" in metrics, metrics
'
echo "make docker: a task went through all agents in workflow $workflow"
