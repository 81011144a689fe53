"""`python -m camoxpert_nb` is `camoxpert`."""

import sys

from .cli.main import main

sys.exit(main())
