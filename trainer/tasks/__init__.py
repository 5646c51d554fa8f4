"""Training tasks beside the segmentation network: language modelling, averaging, assembly from parts."""
