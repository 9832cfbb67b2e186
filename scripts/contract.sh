#!/usr/bin/env bash
# The contract suite, its effects that stand once, and its rebalances, on real Kafka alone: some minutes on
# two cores, for another version of the brokers (KAFKA_VERSION).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd "$root"
scripts/java.sh
.venv/bin/python -m pytest -n 3 --dist worksteal -m "kafka and not campaign" tests/shell/test_contract.py \
    tests/shell/test_contract_life.py tests/shell/test_exactly_once.py tests/shell/test_round_trip.py \
    tests/shell/test_rebalance.py </dev/null
