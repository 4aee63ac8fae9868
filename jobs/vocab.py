"""Ray job: `ray job submit --working-dir . -- python jobs/vocab.py CORPUS --out FILE`."""

import sys

from sentray.cli import main

main(["vocab", *sys.argv[1:]])
