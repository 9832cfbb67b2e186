#!/usr/bin/env bash
# Sees to it that Java >= 17 and Maven are there, for the real Kafka of the tests.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if [[ -n ${KAFKA_BOOTSTRAP_SERVERS:-} ]]; then
    say "Most tests use the Kafka at KAFKA_BOOTSTRAP_SERVERS; those that stop brokers start their own"
fi

java_is_new() {
    local java=java version
    [[ -n ${JAVA_HOME:-} && -x $JAVA_HOME/bin/java ]] && java=$JAVA_HOME/bin/java
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1) || return 1
    [[ -n $version && $version -ge 17 ]]
}

have() { java_is_new && command -v mvn >/dev/null; }

if ! have; then
    packages=()
    java_is_new || packages+=(openjdk-17-jre-headless)
    command -v mvn >/dev/null || packages+=(maven)
    # Newer Debian releases have no Java 17 any more.
    apt_install "${packages[@]}" || apt_install "${packages[@]/openjdk-17-jre-headless/default-jre-headless}" || true
fi
have || fail "the tests run real Apache Kafka, which needs Java 17 or later and Maven. Install them with:" \
    "sudo apt-get install openjdk-17-jre-headless maven  (Debian, Ubuntu)  or  brew install openjdk@17 maven  (macOS)"
