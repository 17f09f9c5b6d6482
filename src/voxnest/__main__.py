"""`python -m voxnest` is the command `voxnest`."""

from voxnest.cli.main import main

if __name__ == "__main__":
    main()
