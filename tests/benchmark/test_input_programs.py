"""What the input benchmarks read of a dataset."""

from simplejpeg import decode_jpeg

from alexnet_jax.benchmark import raw_records
from alexnet_jax.data.cache import CachedSource


def test_first_records_are_all_that_is_kept_in_memory(tiny, monkeypatch):
    monkeypatch.setattr(raw_records, 'MOST', 3)
    records = tiny.records('train')
    kept = CachedSource(raw_records.FirstRecords(records), record_size=256)
    assert (len(kept), len(records), kept.labels.shape) == (3, 40, (3,))
    for index in range(3):
        jpeg, label = records[index]
        assert kept[index][1] == label and (kept[index][0] == decode_jpeg(jpeg)).all()
