#!/usr/bin/env bash
# Removes what the other targets made in the checkout. Kafka's jars, in the user's cache folder, stay.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
rm -rf .venv .cache .artifacts .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
