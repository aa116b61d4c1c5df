"""Run a search: ``python search/run.py --help`` says how."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":
    from search.cli import main

    sys.exit(main(sys.argv[1:]))
