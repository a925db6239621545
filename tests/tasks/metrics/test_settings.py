"""Metrics with other settings have other states."""

from torchmetrics.aggregation import SumMetric

from zoo.tasks.metrics.settings import keep_apart


def state(*settings) -> float:
    metric = SumMetric()
    keep_apart(metric, *settings)
    metric.reset()
    return float(metric.setting)


def test_equal_for_equal_settings_only():
    assert state("random", [[0, 1]], None) == state("random", [[0, 1]], None)
    assert len({state("random", 0), state("random", 1), state("given", 0), state()}) == 4
