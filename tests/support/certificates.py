"""Certificates for tests, made by the `openssl` command."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.errors import HarnessError

__all__ = ["Authority", "Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and the certificate of it, as files in PEM."""

    key: Path
    certificate: Path


class Authority:
    """Signs certificates that are good for two days."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def sign(self, common_name: str, *, password: str = "", loopback: bool = False) -> Identity:
        """Make a key, encrypted if there is a password, and a certificate; `loopback`: of a server on 127.0.0.1."""
        stem = self._folder / f"{self._name}-{common_name}"
        key, request, certificate = (stem.with_suffix(end) for end in (".key", ".csr", ".crt"))
        secrecy = ["-passout", "stdin"] if password else ["-nodes"]
        _openssl(
            *("req", "-newkey", "rsa:2048", *secrecy, "-subj", f"/CN={common_name}"),
            *("-keyout", str(key), "-out", str(request)),
            given=password,
        )
        extensions = stem.with_suffix(".ext")
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost\n" if loopback else "basicConstraints=CA:FALSE\n"
        extensions.write_text(names, encoding="ascii")
        _openssl(
            *(
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                str(request),
                "-extfile",
                str(extensions),
                "-CAcreateserial",
            ),
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-out", str(certificate)),
        )
        return Identity(key, certificate)


def _openssl(*arguments: str, given: str = "") -> None:
    if shutil.which("openssl") is None:
        raise HarnessError("the tests make certificates with the `openssl` command: install openssl")
    done = subprocess.run(
        ["openssl", *arguments], input=f"{given}\n", capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise HarnessError(f"openssl {arguments[0]} failed: {done.stderr}")
