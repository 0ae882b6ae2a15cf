"""The command line: `maclip-pyiqa --help`, or `python -m maclip_pyiqa --help`. One file a command."""

from .main import main as main
