"""What a proof costs beside the bare signature: ``python -m benchmarks.proofs`` prints the ratios (DPoP, ES256)."""

import timeit
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from s2s_fastapi.proof import checked, header
from s2s_fastapi.proof.checked import check_proof
from s2s_fastapi.proof.key import ProofKey

NOW = 1_800_000_000.0
URL = "https://api.example/v1/things"
TOKEN = "h" * 80 + "." + "p" * 900 + "." + "s" * 340


def microseconds(work: Callable[[], Any], times: int = 2000) -> float:
    """Return the time of one call in the best of 7 rounds."""
    return min(timeit.repeat(work, number=times, repeat=7)) / times * 1e6


def main() -> None:
    """Measure, and print one line for each."""
    key, private, algorithm = ProofKey(), ec.generate_private_key(ec.SECP256R1()), ec.ECDSA(SHA256())
    message = b"m" * 400
    made = private.sign(message, algorithm)
    public = private.public_key()
    value, token = [key.proof("GET", URL, now=NOW, token=TOKEN).encode()], TOKEN.encode()

    def check() -> object:
        return check_proof(value, thumbprint=key.thumbprint, method="GET", urls=(URL,), token=token, now=NOW)

    def check_a_new_key() -> None:
        header.read_header.cache_clear()
        checked._loaded.cache_clear()  # noqa: SLF001 - to see what it saves
        check()

    sign = microseconds(lambda: private.sign(message, algorithm))
    verify = microseconds(lambda: public.verify(made, message, algorithm))
    for name, taken, bare in (
        ("make a proof", microseconds(lambda: key.proof("GET", URL, now=NOW, token=TOKEN)), sign),
        ("check a proof", microseconds(check), verify),
        ("check the first proof of a key", microseconds(check_a_new_key, 300), verify),
    ):
        print(f"{name}: {taken:.1f} us, {taken / bare:.2f} x the bare ES256 operation ({bare:.1f} us)")


if __name__ == "__main__":
    main()
