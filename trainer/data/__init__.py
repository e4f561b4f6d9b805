"""Photos with labels: sources, labels, splits, loaders and augmentation."""
