"""Ray job: `ray job submit --working-dir . -- python jobs/words.py BUNDLE export --out VECTORS`."""

import sys

from sentray.cli import main

main(["words", *sys.argv[1:]])
