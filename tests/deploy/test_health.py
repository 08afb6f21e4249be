"""The health check of stores elsewhere, as a container runs it, and what a machine without PostgreSQL is told."""

import asyncio
import datetime
import ipaddress
import ssl
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from helmctl.supervisor.health import is_healthy
from tests.deploy.composition import ROOT
from tests.postgres import program


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(hours=1))
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return path


async def asked(url: str, lines: int, reply: bytes, tls: ssl.SSLContext | None = None) -> tuple[bool, bytes]:
    """Whether `url` is healthy when it answers `reply` to `lines` lines, and what was sent to it."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend([await reader.readline() for _ in range(lines)])
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        return await is_healthy(url.format(port=port)), b"".join(got)


async def test_user_password_and_database_of_the_address_are_used_whatever_they_hold() -> None:
    healthy, sent = await asked("redis://ann:two%20words@127.0.0.1:{port}/3", 15, b"+OK\r\n+OK\r\n+PONG\r\n")
    assert healthy
    assert sent == b"*3\r\n$4\r\nAUTH\r\n$3\r\nann\r\n$9\r\ntwo words\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n"


@pytest.mark.parametrize(("reply", "healthy"), [(b":1\r\n", True), (b":0\r\n", False), (b"+PONG\r\n", False), (b"-NOAUTH\r\n", False)])
async def test_only_a_sign_of_life_that_is_there_counts(reply: bytes, healthy: bool) -> None:
    found, sent = await asked("redis://127.0.0.1:{port}#beat", 5, reply)
    assert found is healthy
    assert sent.startswith(b"*2\r\n$6\r\nEXISTS\r\n") and b"helm:alive:beat@" in sent


@pytest.mark.parametrize(
    ("options", "healthy"),
    [("?ssl_ca_certs={folder}/both.pem", True), ("?ssl_cert_reqs=none", True), ("", False)],
)
async def test_an_encrypted_redis_is_trusted_as_the_address_says(certificate: Path, options: str, healthy: bool) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    url = "rediss://127.0.0.1:{port}" + options.replace("{folder}", str(certificate.parent))
    assert (await asked(url, 3, b"+PONG\r\n", tls))[0] is healthy


async def test_the_command_says_it_by_its_exit_code() -> None:
    async def exit_code(reply: bytes) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(reply)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/healthz"
            process = await asyncio.create_subprocess_exec(sys.executable, "-m", "helmctl.supervisor.health", url, cwd=ROOT)
            return await process.wait()

    assert await exit_code(b"HTTP/1.1 200 OK\r\n\r\n") == 0
    assert await exit_code(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") == 1


def test_a_machine_without_postgresql_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(
        pytest.fail.Exception, match=r"^initdb is needed for these tests: install PostgreSQL's server \(apt-get install postgresql\)$"
    ):
        program("initdb")
