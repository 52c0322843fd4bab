#!/usr/bin/env bash
# All tests, in an environment that this script makes: bash hub_scripts/test.sh [pytest's arguments]
set -euo pipefail
source "$(dirname "$0")/env.sh" test
ruff check .
python -m pytest "$@"
