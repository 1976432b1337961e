"""``python -m modal_ntk``: the command line, also where scripts are not on the path."""

import sys

from modal_ntk.cli import main

if __name__ == "__main__":
    sys.exit(main())
