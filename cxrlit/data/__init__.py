"""From files on disk to batches: sources, index, split, store, transforms, loaders."""
