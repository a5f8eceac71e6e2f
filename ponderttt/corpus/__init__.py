"""From real source files to chunks: pinned packages → filtered, deduplicated shards → token streams."""
