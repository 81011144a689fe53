"""`python -m camoxpert_nb` is `camoxpert`."""

import sys

from .cli import main

sys.exit(main())
