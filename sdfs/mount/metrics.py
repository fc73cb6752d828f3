"""What a mount does, for Prometheus: `Statistics` over HTTP, in its text format, with its conventions for names.

Only a mount that is asked for it imports this, and with it prometheus-client.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from sdfs.control.answers import Statistics
from sdfs.errors import StoreBusy, UserError
from sdfs.owner.census import ENGINE_STATES
from sdfs.owner.owner import Owner
from sdfs.owner.renders.meters import BOUNDS, Histogram

_BOUNDS_APART = 5  # of the histograms' many bounds, two for a factor of ten are told
_Samples = Mapping[str, float | None]  # by the value of a label; None: there is no such


@contextlib.contextmanager
def serving_metrics(owner: Owner, host: str, port: int) -> Iterator[None]:
    """Answers at http://host:port/metrics. Raises UserError where it cannot listen there."""
    registry = CollectorRegistry()
    registry.register(_Collector(owner))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise UserError(f"metrics cannot be served at {host}:{port}: {error.strerror or error}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector(Collector):
    def __init__(self, owner: Owner) -> None:
        self._owner = owner

    def collect(self) -> Iterable[Metric]:
        try:
            statistics = self._owner.services.statistics()
        except StoreBusy:  # the mount ends
            return
        meters = self._owner.renders.meters
        yield from _of_files(statistics)
        yield from _of_reads(statistics)
        yield _histogram(
            "sdfs_read_seconds",
            "What openers of shrunk pictures waited for their first bytes.",
            {"engine": meters.decoded_reads, "cache": meters.cached_reads},
        )
        yield from _of_processes(statistics)


def _of_files(it: Statistics) -> Iterator[Metric]:
    states = {state: getattr(it, state) for state in ("latent", "exact", "pending", "plain", "damaged")}
    yield _gauges("sdfs_files", "Files, when they were counted last.", "state", states)
    yield GaugeMetricFamily("sdfs_logical_bytes", "What readers get of all files, then.", it.logical_bytes)
    yield GaugeMetricFamily("sdfs_stored_bytes", "What the store keeps of them, then.", it.stored_bytes)
    yield GaugeMetricFamily("sdfs_count_age_seconds", "How long ago they were counted.", it.counted_seconds_ago)
    yield GaugeMetricFamily("sdfs_queued_files", "Files that are pending now.", it.queued)


def _of_reads(it: Statistics) -> Iterator[Metric]:
    yield CounterMetricFamily("sdfs_decoded_pictures", "Pictures decoded for readers.", it.decoded)
    yield CounterMetricFamily("sdfs_decoded_ahead_pictures", "Of these, begun before a reader asked for them.", it.decoded_ahead)
    yield CounterMetricFamily("sdfs_decoded_pixels", "Pixels of these.", round(it.decoded_megapixels * 1e6))
    yield CounterMetricFamily("sdfs_decode_seconds", "Time in which there was a picture to decode.", it.decode_seconds)
    caches = (
        ("sdfs_cache_hits", "Renders that were there.", CounterMetricFamily, {"memory": it.memory_hits, "disk": it.disk_hits}),
        ("sdfs_cache_misses", "Renders that were not.", CounterMetricFamily, {"memory": it.memory_misses, "disk": it.disk_misses}),
        ("sdfs_cache_bytes", "Size of renders kept.", GaugeMetricFamily, {"memory": it.memory_bytes, "disk": it.disk_bytes}),
    )
    for name, text, family, samples in caches:
        yield _labelled(family(name, text, labels=["tier"]), samples)


def _of_processes(it: Statistics) -> Iterator[Metric]:
    states = {state: float(state == it.engine_state) for state in ENGINE_STATES}
    yield _gauges("sdfs_engine_state", "1 for what the engine is doing.", "state", states)
    yield CounterMetricFamily("sdfs_engine_starts", "Times that the engine was started.", it.engine_starts)
    if it.engine_device is not None:
        device = InfoMetricFamily("sdfs_engine_device", "Where the bundled model is, and in which number format.")
        device.add_metric([], {"device": it.engine_device, "dtype": it.engine_dtype or ""})
        yield device
    if it.engine_device_bytes is not None:
        yield GaugeMetricFamily("sdfs_engine_device_memory_bytes", "Memory that the engine holds there.", it.engine_device_bytes)
    memory = {"mount": it.resident_bytes, "engine": it.engine_resident_bytes}
    yield _gauges("sdfs_resident_memory_bytes", "Memory of a process.", "process", memory)


def _gauges(name: str, text: str, label: str, samples: _Samples) -> Metric:
    return _labelled(GaugeMetricFamily(name, text, labels=[label]), samples)


def _labelled(family: GaugeMetricFamily | CounterMetricFamily, samples: _Samples) -> Metric:
    for value, sample in samples.items():
        if sample is not None:
            family.add_metric([value], sample)
    return family


def _histogram(name: str, text: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["source"])
    for source, histogram in histograms.items():
        counts, total = histogram.cumulative()
        told = list(zip(BOUNDS, counts, strict=False))[::_BOUNDS_APART]
        family.add_metric([source], [*((f"{bound:g}", count) for bound, count in told), ("+Inf", counts[-1])], total)
    return family
