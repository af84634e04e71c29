"""Take records somewhere: loggers, TensorBoard, W&B, the dataset, figures; see `sinks.base`."""
