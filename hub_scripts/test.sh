#!/usr/bin/env bash
# All tests, in an environment that this script makes: bash hub_scripts/test.sh [pytest's arguments]
set -euo pipefail
source "$(dirname "$0")/env.sh" test
ruff check .
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # threads of two processes on two cores wait for one another
python -m pytest -n 2 --dist loadfile "$@"
