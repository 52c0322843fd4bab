#!/usr/bin/env bash
# All checks and tests, in an environment that this script makes: bash hub_scripts/test.sh
# Further cases of what these try, some ten minutes more: bash hub_scripts/test.sh --every
# With pytest's arguments only pytest runs: bash hub_scripts/test.sh tests/core
set -euo pipefail
source "$(dirname "$0")/env.sh" test
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # threads of two processes on two cores wait for one another
pytest=(python -m pytest -n 2 --dist loadfile)
[ $# -eq 0 ] || exec "${pytest[@]}" "$@"
ruff check .
ruff format --check .
mypy
"${pytest[@]}"
