"""Files on disk: atomic writes, manifests, digests of code, parameters, checkpoints, pinned wheels."""
