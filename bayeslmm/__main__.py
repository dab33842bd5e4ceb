"""`python -m bayeslmm` is the command `bayeslmm`."""

import sys

from bayeslmm.cli import main

sys.exit(main())
