# SPDX-License-Identifier: BSD-2-Clause
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptnetmap.pcap import CaptureFileError, PcapngWriter, PcapWriter, open_capture


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A good file of each format."""
    contents = []
    for writer in (PcapWriter, PcapngWriter):
        path = tmp_path_factory.mktemp("good") / "file"
        with writer(path) as out:
            for i in range(6):
                out.write(bytes([i]) * (11 * i), 10**18 + i, length=100 * i, outbound=(None, True, False)[i % 3])
            if isinstance(out, PcapngWriter):
                out.statistics(received=6, dropped=0, ts_ns=10**18)
        contents.append(path.read_bytes())
    return contents


changes = st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=0, max_size=8), st.booleans()), max_size=6)


@settings(max_examples=400, deadline=None)
@given(which=st.integers(0, 1), changes=changes, tolerant=st.booleans())
def test_no_change_to_a_file_makes_reading_it_raise_anything_else(files, which, changes, tolerant):
    data = bytearray(files[which])
    for place, new, overwrite in changes:
        at = place % (len(data) + 1)
        data[at : at + len(new) if overwrite else at + 1] = new
    error = None
    try:
        with open_capture(io.BytesIO(bytes(data)), tolerant=tolerant) as capture:
            for record in capture:
                assert len(record.data) <= len(data)
                assert record.interface < len(capture.interfaces)
    except CaptureFileError as raised:
        error = raised
    assert error is None or "\n        " in str(error)
    assert error is None or not (tolerant and error.truncated)


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), magic=st.sampled_from([b"", b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a"]))
def test_noise_is_never_anything_but_an_error_or_records(data, magic):
    try:
        with open_capture(io.BytesIO(magic + data)) as capture:
            list(capture)
    except CaptureFileError:
        pass
