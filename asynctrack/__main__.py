"""``python -m asynctrack`` is the command ``asynctrack``."""

from asynctrack.cli import main

if __name__ == "__main__":
    main()
