"""`sentray tune`: trials of settings, judged on held-out rows."""
