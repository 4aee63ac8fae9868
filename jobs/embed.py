"""Ray job: `ray job submit --working-dir . -- python jobs/embed.py CORPUS --out VECTORS`."""

import sys

from sentray.cli import main

main(["embed", *sys.argv[1:]])
