#!/usr/bin/env bash
# Makes anew the pinned libraries of packaged services, with their hashes, from src/vizsla/packaging/locks/*.in, by uv in
# a virtual environment of its own; then looks whether each is there as a wheel wherever a service may be built.
# Usage: scripts/lock_service.sh [arguments of uv pip compile, such as --upgrade-package numpy; --upgrade for all]
set -euo pipefail
cd "$(dirname "$0")/../src/vizsla/packaging/locks"
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip install --quiet uv
uv="$tools/venv/bin/uv --no-config"
index=https://pypi.org/simple
for device in cpu cuda; do
  $uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --default-index $index \
    --custom-compile-command scripts/lock_service.sh --output-file "$device.txt" "$@" "$device.in"
  for python in 3.11 3.12 3.13; do
    for machine in x86_64 aarch64; do
      $uv pip install --quiet --dry-run --target "$tools/none" --require-hashes --only-binary :all: --default-index $index \
        --python-version "$python" --python-platform "$machine-manylinux_2_34" --requirements "$device.txt"
    done
  done
done
