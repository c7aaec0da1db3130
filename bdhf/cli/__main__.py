"""`python -m bdhf.cli`."""

from bdhf.cli import main

if __name__ == "__main__":
    main()
