"""Archives whose headers lie are read within themselves, or refused in one line."""

import hypothesis
import pytest
from archives import SYNSETS, TRAIN, VALIDATION, photograph, resum, write_archives
from fuzzing import fuzzed, outcome
from hypothesis import strategies as st

from alexnet_jax.data.preparing import imagenet
from alexnet_jax.errors import InputError


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A folder of both archives, and the bytes of each."""
    images = [photograph(seed, size=(20, 20)) for seed in range(4)]
    train = {synset: {f'{synset}_{i}.JPEG': image for i, image in enumerate(images)} for synset in SYNSETS[:2]}
    folder = write_archives(tmp_path_factory.mktemp('tars'), train=train, validation=images)
    return folder, {name: (folder / name).read_bytes() for name in (TRAIN, VALIDATION)}


NUMBER = st.binary(min_size=12, max_size=12) | st.integers(-(2**70), 2**70).map(
    lambda n: bytes([0x80 if n >= 0 else 0xFF]) + (n % 2**88).to_bytes(11, 'big')
)
FIELDS = st.one_of(
    st.tuples(st.integers(0, 511), st.binary(min_size=1, max_size=3)),
    st.tuples(st.just(0), st.sampled_from([b'../../evil\0', b'/etc/x\0', b'n01440764.tar\0', b'a\nb\0', b'\xff'])),
    st.tuples(st.just(124), NUMBER),
    st.tuples(st.just(156), st.sampled_from([bytes([kind]) for kind in b'\x000123456789xgLKSDNVMX'])),
    st.tuples(st.just(345), st.binary(max_size=100)),
)
EDITS = st.lists(st.tuples(st.integers(0, 100), st.lists(FIELDS, min_size=1, max_size=3), st.booleans()), max_size=3)
CUT = st.none() | st.floats(0, 1)


def forged(data, edits, cut):
    data = bytearray(data)
    headers = [start for start in range(0, len(data), 512) if data[start + 257 : start + 262] == b'ustar']
    for which, fields, summed in edits:
        start = headers[which % len(headers)]
        for offset, value in fields:
            data[start + offset : start + min(offset + len(value), 512)] = value[: 512 - offset]
        if summed:
            resum(data, start)
    return bytes(data if cut is None else data[: int(cut * len(data))])


def check_forged_archive(whole, name, edits, cut):
    folder, contents = whole

    def make_spec():
        return imagenet.make_imagenet_spec(folder)

    try:
        (folder / name).write_bytes(forged(contents[name], edits, cut))
        found = outcome('archives', make_spec, InputError)
        if isinstance(found, InputError):
            return
        for split, archive in (('train', TRAIN), ('validation', VALIDATION)):
            for example in found.splits[split].iter_examples():
                assert example.source.path == str(folder / archive)
                assert example.source.start > 0 and example.source.size >= 0
                assert 0 <= example.label < 1000
    finally:
        (folder / name).write_bytes(contents[name])


forged_archives = hypothesis.given(st.sampled_from([TRAIN, VALIDATION]), EDITS, CUT)
test_imagenet_spec_of_forged_archive_stays_inside_or_raises_one_line = fuzzed(50)(forged_archives(check_forged_archive))
test_imagenet_spec_of_more_forged_archives = pytest.mark.repeats(fuzzed(150)(forged_archives(check_forged_archive)))
