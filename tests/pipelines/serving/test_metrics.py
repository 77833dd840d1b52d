from pipelines.serving.metrics import Metrics


def test_buckets_are_cumulative_and_labels_are_escaped():
    metrics = Metrics()
    for seconds in (0.05, 0.3, 100):
        metrics.observe("predict", 200, seconds)
    text = metrics.text(2, 1, 'a"b\\', "3")
    assert 'le="0.1"} 1\n' in text
    assert 'le="0.5"} 2\n' in text
    assert 'le="+Inf"} 3\n' in text
    assert 'brainseg_request_seconds_sum{path="predict"} 100.350000' in text
    assert "brainseg_uploads_running 2\n" in text
    assert 'name="a\\"b\\\\",version="3"' in text
    assert text.endswith("\n")
