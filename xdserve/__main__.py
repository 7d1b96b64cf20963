"""`python -m xdserve` is `xdserve`."""

import sys

from xdserve.cli import main

if __name__ == "__main__":
    sys.exit(main())
