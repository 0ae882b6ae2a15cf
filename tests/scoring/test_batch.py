"""Groups of files that are scored at once."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maclip_pyiqa.scoring.batch import GROUP_PIXELS, FileRead, groups, read_file, read_files

SIZES = st.one_of(st.none(), st.integers(1, 50), st.integers(GROUP_PIXELS // 3, GROUP_PIXELS * 2))


@given(st.lists(SIZES, max_size=20), st.integers(1, 5))
def test_groups_are_bounded_and_as_large_as_possible(sizes, batch):
    images = {size: None if size is None else np.broadcast_to(np.uint8(0), (1, size, 3)) for size in sizes}
    files = [FileRead(str(i), images[size], '') for i, size in enumerate(sizes)]
    found = list(groups(files, batch))
    assert [file.path for group in found for file in group] == [file.path for file in files]

    def pixels(group):
        return sum(0 if file.pixels is None else file.pixels.shape[1] for file in group)

    for group in found:
        assert 1 <= len(group) <= batch and (pixels(group) <= GROUP_PIXELS or len(group) == 1)
    for group, after in pairwise(found):
        assert len(group) == batch or pixels([*group, after[0]]) > GROUP_PIXELS


def test_files_that_cannot_be_read_are_returned_with_an_error(tmp_path):
    Image.new('RGB', (3, 2), 'red').save(tmp_path / 'a.png')
    good, bad, missing = read_files([str(tmp_path / name) for name in ('a.png', '.', 'none.png')])
    assert good.pixels.shape == (2, 3, 3) and good.error == ''
    assert bad.pixels is missing.pixels is None
    assert 'a folder' in bad.error and missing.error == 'No such file or directory'
    assert list(read_files([])) == []


def test_the_content_of_a_file_is_read_as_the_file_is(tmp_path):
    path = tmp_path / 'a.png'
    Image.new('RGB', (40, 30), 'red').save(path)
    file, content = read_file(str(path), window=64), read_file('x', path.read_bytes(), window=64)
    assert content.path == 'x' and (content.pixels == file.pixels).all() and content.flags == file.flags != ''
    broken = read_file('x', path.read_bytes()[:50])
    assert broken.pixels is None and broken.error and 'not an image' in read_file('x', b'').error
