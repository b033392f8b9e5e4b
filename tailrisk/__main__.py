"""``python -m tailrisk``."""

from tailrisk.cli import main

if __name__ == "__main__":
    main()
