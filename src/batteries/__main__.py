"""`python -m batteries`: the same as the command `batteries`."""

from batteries.cli.app import main

if __name__ == "__main__":
    raise SystemExit(main())
