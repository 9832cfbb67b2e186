"""Java, and the jars of Apache Kafka in a cache outside the checkout."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.support.errors import HarnessError

__all__ = ["class_path", "find_java", "kafka_version"]

POM = Path(__file__).with_name("pom.xml")
JAVA_NEEDED = 17
REMEDY = (
    "`make test` installs it on Debian as root; elsewhere "
    "`sudo apt-get install openjdk-17-jre-headless maven` or "
    "`brew install openjdk@17 maven` does; or set KAFKA_BOOTSTRAP_SERVERS to a running Apache Kafka"
)
TRIES = 3  # of the download: a mirror may hiccup


def find_java() -> str:
    """The path of a `java` of version 17 or later: JAVA_HOME's, else the PATH's. HarnessError: the remedy."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else None
    java = java or shutil.which("java")
    if java is None:
        raise HarnessError(f"no `java` found, version {JAVA_NEEDED} or later is needed: {REMEDY}")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA_NEEDED:
        found = said.splitlines()[0] if said else "nothing that runs"
        raise HarnessError(f"`{java}` is {found}, version {JAVA_NEEDED} or later is needed: {REMEDY}")
    return java


def class_path() -> str:
    """A Java class path with Kafka's jars, which are downloaded first if the cache has none.

    Safe when several test runs begin at once: one downloads, the others wait. A download that was cut off is
    never used.
    """
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(base) / "retriable-kafka-client"
    version = kafka_version()
    jars = cache / f"kafka-{version}"
    if not jars.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "download.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not jars.is_dir():
                _download(cache, jars, version)
    return f"{jars}/*"


def kafka_version() -> str:
    """The version of the brokers that the tests start: KAFKA_VERSION, else the one that `pom.xml` names."""
    wanted = os.environ.get("KAFKA_VERSION")
    if wanted:
        return wanted
    namespace = {"m": "http://maven.apache.org/POM/4.0.0"}
    version = ElementTree.parse(POM).findtext("m:properties/m:kafka.version", namespaces=namespace)
    assert version is not None
    return version


def _download(cache: Path, jars: Path, version: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise HarnessError(f"no `mvn` (Maven) found, it downloads Kafka's jars: {REMEDY}")
    said = ""
    for _ in range(TRIES):
        with tempfile.TemporaryDirectory(dir=cache, prefix="partial-") as partial:
            target = Path(partial) / "jars"
            command = [
                maven,
                "-q",
                "-B",
                "--strict-checksums",  # a jar that is not what its registry says is refused
                "-f",
                str(POM),
                "dependency:copy-dependencies",
                "-DincludeScope=runtime",
            ]
            done = subprocess.run(
                [*command, f"-DoutputDirectory={target}", f"-Dkafka.version={version}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0 and any(target.glob("kafka_*.jar")):
                target.rename(jars)
                return
            said = (done.stdout + done.stderr)[-2000:]
    raise HarnessError(f"Maven could not download Apache Kafka {version} in {TRIES} attempts: {said}")
