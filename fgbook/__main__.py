"""``python -m fgbook``: the same as the command ``fgbook``."""

from .cli import main

main()
