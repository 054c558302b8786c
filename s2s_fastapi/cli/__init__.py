"""The command ``s2s-fastapi``, a module for each of its commands. The only room that prints and exits."""

from s2s_fastapi.cli.commands import main

__all__ = ["main"]
