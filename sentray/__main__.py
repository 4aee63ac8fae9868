"""`python -m sentray` is the command `sentray`."""

from sentray.cli import main

if __name__ == "__main__":
    main()
