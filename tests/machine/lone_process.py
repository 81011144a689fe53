"""One process of several, with what a test changes in it; test_joining.py starts these by hand.

lone_process.py CHANGES ARGUMENTS...: CHANGES is Python, run before `camoxpert ARGUMENTS`.
"""

from __future__ import annotations

import sys

import camoxpert_nb

if __name__ == "__main__":
    exec(sys.argv[1], {"camoxpert_nb": camoxpert_nb})
    from camoxpert_nb.cli.main import main

    sys.exit(main(sys.argv[2:]))
