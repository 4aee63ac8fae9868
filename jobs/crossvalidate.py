"""Ray job: `ray job submit --working-dir . -- python jobs/crossvalidate.py CORPUS --out OUT`."""

import sys

from sentray.cli import main

main(["crossvalidate", *sys.argv[1:]])
