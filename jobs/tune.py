"""Ray job: `ray job submit --working-dir . -- python jobs/tune.py CORPUS --out OUT`."""

import sys

from sentray.cli import main

main(["tune", *sys.argv[1:]])
