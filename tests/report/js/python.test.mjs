// What Python computes and JavaScript must too: tests/report/test_scripts.py writes the cases, and names their file.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { Histogram, Page, QualityMap, Rows, Scatter } from './load.mjs';

const cases = JSON.parse(readFileSync(process.env.MACLIP_SCRIPT_CASES, 'utf8'));
const numbers = (values) => Float64Array.from(values, (value) => value ?? NaN);

function close(got, want, tolerance, what) {
  assert.equal(got.length, want.length);
  const worst = Math.max(...want.map((value, i) => Math.abs(got[i] - value)));
  assert.ok(worst <= tolerance, `${what}: ${worst}`);
}

test('maps are those of Analysis.quality_map', () => {
  for (const { windows, name, want } of cases.maps) {
    const [height, width] = windows.size;
    close(QualityMap.values(windows, name, width, height), want, 1e-4, name);
    // an image of other pixels with its windows at the same places has the same map
    const scale = (spans) => spans.map(([start, end]) => [2.5 * start, 2.5 * end]);
    const [[size], rows, columns] = [[windows.size], windows.rows, windows.columns].map(scale);
    const larger = { ...windows, size, rows, columns };
    close(QualityMap.values(larger, name, width, height), want, 1e-4, `${name}, larger`);
  }
});

test('colours are those of viridis at ten places, and their means between', () => {
  cases.viridis.forEach((colour, i) => {
    close(QualityMap.colour(i / 9), colour, 1, i); // matplotlib rounds down
    const next = cases.viridis[i + 1] ?? colour;
    close(QualityMap.colour((i + 0.5) / 9), colour.map((c, k) => (c + next[k]) / 2), 1.5, i + 0.5);
  });
  assert.deepEqual(QualityMap.colour(-1), QualityMap.colour(0));
  assert.deepEqual(QualityMap.colour(2), QualityMap.colour(1));
});

test('the rank correlation is that of SciPy', () => {
  for (const { rows, x, y, want } of cases.correlations) {
    close([Scatter.correlation(rows, numbers(x), numbers(y))], [want], 1e-12, rows.length);
  }
});

test('bins of the histogram are those of NumPy', () => {
  for (const { values, mask, extent, all, some } of cases.histograms) {
    assert.deepEqual(Histogram.extent(numbers(values)), extent);
    assert.deepEqual(Histogram.counts(numbers(values), mask, extent, all.length), [all, some]);
  }
});

test('a saved table is that of CSVTable', () => {
  const columns = Rows.columns(cases.scores.columns);
  const rows = [...columns[0].values.keys()];
  assert.equal(Rows.csv(rows, columns, cases.scores.folder), cases.csv);
});

test('paths are saved as the bytes of their files', () => {
  for (const [path, want] of cases.bytes) {
    const parts = Page.bytes(path).map((part) => Buffer.from(part).toString('hex'));
    assert.equal(parts.join(''), want);
  }
});
