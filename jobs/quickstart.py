"""Ray job: `ray job submit --working-dir . -- python jobs/quickstart.py --out DIR`."""

import sys

from sentray.cli import main

main(["quickstart", *sys.argv[1:]])
