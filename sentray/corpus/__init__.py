"""Reviews from anywhere: a URI becomes shards, and shards become rows of one schema."""
