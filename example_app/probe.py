"""The health check of the example containers, whose image has no curl: exit 0 if the service answers."""

import sys
from urllib.request import urlopen


def main() -> None:
    """Ask /healthz of the port named on the command line."""
    with urlopen(f"http://127.0.0.1:{int(sys.argv[1])}/healthz", timeout=4) as answer:
        sys.exit(answer.status != 200)  # noqa: PLR2004 - HTTP's own number


if __name__ == "__main__":
    main()
