#!/usr/bin/env bash
# Makes its own virtual environment in .venv-test, installs what the tests need, and runs every check.
# Usage: scripts/test.sh [pytest arguments], for example: scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-test
python=${PYTHON:-python3}

as_root() { # apt-get install, where this user may
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON to one." >&2; exit 1; }
"$python" -c 'import ensurepip' 2>/dev/null || as_root python3-venv
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --editable ".[test]"
# The browser tests say why they are skipped where chromium cannot be installed.
command -v chromium >/dev/null || as_root chromium || echo "chromium could not be installed: the browser tests will be skipped" >&2
# So do those that need a PostgreSQL server.
compgen -G "/usr/lib/postgresql/*/bin/initdb" >/dev/null || command -v initdb >/dev/null || as_root postgresql ||
  echo "postgresql could not be installed: the tests with a PostgreSQL server will be skipped" >&2

set -x
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/lint-imports"
# One worker more than there are cores, since tests wait too; what they start computes on one thread each, or they would
# hold each other up. In the order of the folders: the long tests come first, and the many short ones fill what is left.
export OMP_NUM_THREADS=1
"$venv/bin/python" -m pytest -n $(($(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder "$@"
