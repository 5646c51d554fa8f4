"""Tasks beside training the segmentation network: language modelling, classifier prior, averaging, assembly."""
