"""Run the command line with ``python -m s2s_fastapi.cli``."""

from s2s_fastapi.cli import main

main()
