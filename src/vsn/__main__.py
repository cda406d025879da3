"""`python -m vsn` is the command `vsn`."""

from vsn.cli import main

if __name__ == "__main__":
    main()
