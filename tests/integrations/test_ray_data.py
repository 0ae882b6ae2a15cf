"""BatchScorer on Arrow tables, and in a pipeline of Ray Data."""

import json
import logging

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from PIL import Image

from maclip_pyiqa import MACLIP, score_files
from maclip_pyiqa.integrations.ray_data import BatchScorer
from maclip_pyiqa.scoring.formats import read_label
from maclip_pyiqa.scoring.schema import label

NAMES = ['score', 'q_sim', 'q_mag', 'w_sim']


@pytest.fixture(scope='module')
def files(tmp_path_factory, photo_files) -> list[str]:
    """Five images of two sizes, a broken one, and one that is not there."""
    folder = tmp_path_factory.mktemp('images')
    for i in range(5):
        with Image.open(photo_files[i]) as photo:
            photo.crop((0, 0, 90 + 20 * (i % 2), 80)).save(folder / f'{i}.png')
    (folder / 'broken.png').write_bytes((folder / '0.png').read_bytes()[:500])
    return [str(folder / name) for name in (*(f'{i}.png' for i in range(5)), 'broken.png', 'none.png')]


def content(path) -> bytes | None:
    try:
        with open(path, 'rb') as file:
            return file.read()
    except FileNotFoundError:
        return None


def check(table, metric, files):
    """The scores of `score_files`, in order, with the same rows failing."""
    want = list(score_files(metric, files))
    rows = table.to_pylist()
    assert len(rows) == len(want)
    for row, expected in zip(rows, want, strict=True):
        assert (row['score'] is None) == (expected['score'] is None) == bool(row['error'])
        for name in (*metric.summary_columns, 'width', 'height', 'flags'):
            assert row[name] == pytest.approx(expected.get(name), abs=1e-5)  # other batches round otherwise
    assert [bool(row['error']) for row in rows] == [False] * 5 + [True] * (len(files) - 5)


@pytest.mark.parametrize('kind', ['paths', 'bytes', 'struct', 'struct of paths'])
def test_scores_are_those_of_the_files(tiny_metric, files, kind):
    cells = {
        'paths': files,
        'bytes': [content(path) for path in files],
        'struct': [{'bytes': content(path), 'path': 'unused.png' if content(path) else None} for path in files],
        'struct of paths': [{'bytes': None, 'path': path} for path in files],
    }[kind]
    before = pa.table({'id': range(len(files)), 'image': cells}).replace_schema_metadata({'own': 'x'})
    table = BatchScorer(tiny_metric)(before)
    check(table, tiny_metric, files)
    assert table.select(['id', 'image']).equals(before)
    assert table.schema.metadata[b'own'] == b'x'
    found, want = json.loads(table.schema.metadata[b'maclip_pyiqa']), json.loads(json.dumps(label(tiny_metric)))
    assert found | {'date': ''} == want | {'date': ''}


class Wrapped(pa.ExtensionType):
    """A type of somebody's own, whose cells are not text or bytes."""

    def __init__(self, storage):
        super().__init__(storage, 'tests.wrapped')

    def __arrow_ext_serialize__(self):
        return b''

    def __arrow_ext_scalar_class__(self):
        return Opaque


class Opaque(pa.ExtensionScalar):
    def as_py(self, **kwargs):
        return object()


def run_ends(array):
    return pa.RunEndEncodedArray.from_arrays(pa.array(range(1, len(array) + 1), pa.int32()), array)


TYPES = {
    'large': lambda array: array.cast(pa.large_string() if array.type == pa.string() else pa.large_binary()),
    'view': lambda array: array.cast(pa.string_view() if array.type == pa.string() else pa.binary_view()),
    'categories': lambda array: array.dictionary_encode(),
    'run ends': run_ends,
    'extension': lambda array: pa.ExtensionArray.from_storage(Wrapped(array.type), array),
    'extension of categories': lambda array: TYPES['extension'](array.dictionary_encode()),
    'run ends of categories': lambda array: run_ends(array.dictionary_encode()),
}


@pytest.mark.parametrize('name', TYPES)
def test_all_types_of_text_and_bytes(tiny_metric, files, name):
    paths, data = TYPES[name](pa.array(files[:2])), TYPES[name](pa.array([content(path) for path in files[:2]]))
    struct = pa.StructArray.from_arrays([data, paths], ['bytes', 'path'])
    scorer, want = BatchScorer(tiny_metric), [row['score'] for row in score_files(tiny_metric, files[:2])]
    for cells in (paths, data, struct):
        for column in (cells, pa.chunked_array([cells[:1], cells[1:]])):
            before = pa.table({'image': column})
            table = scorer(before)
            assert table['score'].to_pylist() == pytest.approx(want, abs=1e-5)
            assert table.select(['image']).schema.field('image').equals(before.schema.field('image'))


def test_the_schema_is_the_same_whatever_a_batch_holds(tiny, files):
    scorer = BatchScorer(backbone=tiny, prompts='sharp', batch=2, column='path')
    tables = [
        scorer(pa.table({'path': pa.array(part, pa.string())})) for part in (files[:3], files[5:], [None, ''], [])
    ]
    assert [len(table) for table in tables] == [3, 2, 2, 0]
    for table in tables:
        assert table.schema.remove(0).equals(scorer.schema) and table.schema.remove(0).names == [
            *NAMES, 'attribute_sharp', 'width', 'height', 'flags', 'error'
        ]  # fmt: skip
    assert tables[2]['error'].to_pylist() == ['no image: the cell is empty'] * 2
    pa.concat_tables(tables)


def test_wrong_use(tiny_metric, tiny):
    scorer = BatchScorer(tiny_metric)
    with pytest.raises(ValueError, match="no column 'image'; expected one of path, url"):
        scorer(pa.table({'path': ['a'], 'url': ['b']}))
    with pytest.raises(ValueError, match='already has columns score, error; rename or drop'):
        scorer(pa.table({'image': ['a'], 'score': [1.0], 'error': ['']}))
    for cell in (3, [1, 2], {'url': 'x'}):
        with pytest.raises(TypeError, match=r'expected a path, bytes, or \{bytes, path\}'):
            scorer(pa.table({'image': [cell]}))
    with pytest.raises(TypeError, match='expected a MACLIP'):
        BatchScorer('RN50')
    with pytest.raises(TypeError, match='options backbone beside a metric'):
        BatchScorer(tiny_metric, backbone=tiny)
    with pytest.raises(ValueError, match='batch=0'):
        BatchScorer(tiny_metric, batch=0)


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # Ray sets its own deprecated settings
@pytest.mark.slow
def test_a_pipeline_of_ray_data(cluster, tiny, files, tmp_path):
    """Contents of files in, the best out as Parquet with the label; a broken image ends nothing."""
    ray = pytest.importorskip('ray')
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger('ray.data').setLevel(logging.ERROR)
    rows = [{'name': path, 'image': content(path) or b''} for path in files]
    scored = ray.data.from_items(rows, override_num_blocks=3).map_batches(
        BatchScorer,
        fn_constructor_kwargs={'backbone': tiny, 'prompts': 'sharp'},
        batch_format='pyarrow',
        batch_size=2,
        concurrency=1,
    )
    scored = scored.materialize()
    metric = MACLIP(backbone=tiny, prompts='sharp')
    table = pa.concat_tables(ray.get(scored.to_arrow_refs()), promote_options='default')
    order = [table['name'].to_pylist().index(path) for path in files]
    check(table.take(order), metric, files)
    best = sorted(filter(None, table['score'].to_pylist()))[2]
    # not `filter(expr=...)`, which Ray 2.30 lacks
    kept = scored.map_batches(lambda part: part.filter(pc.field('score') >= best), batch_format='pyarrow')
    kept.drop_columns(['image']).write_parquet(str(tmp_path / 'kept'))
    kept = ds.dataset(tmp_path / 'kept')
    assert kept.to_table().num_rows == 3 and 'image' not in kept.schema.names
    for path in (tmp_path / 'kept').iterdir() if ray.__version__ >= '2.60' else ():  # 2.30 drops the schema's metadata
        assert read_label(path)['fingerprint'] == metric.fingerprint()


@pytest.mark.slow
def test_the_scorer_imports_no_ray(tiny):
    import subprocess
    import sys

    code = "import sys, maclip_pyiqa.integrations.ray_data as r; assert r.BatchScorer and 'ray' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)


def test_larger_images_than_are_allowed(tiny, files):
    scorer = BatchScorer(MACLIP(backbone=tiny), column='file', max_pixels=90 * 80)
    rows = scorer(pa.table({'file': files[:2]})).to_pylist()
    assert rows[0]['score'] is not None and 'larger than 7,200 pixels' in rows[1]['error']
