"""`python -m hornbook` is the same as `hornbook`."""

import sys

from hornbook.cli import main

if __name__ == "__main__":
    sys.exit(main())
