"""torchmetrics classes, each with `plot()` where a picture helps."""
