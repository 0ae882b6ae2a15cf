// The pages' scripts as a page runs them: one after another, their top-level names in common. The others act on
// a page and are tested in Chromium.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';

for (const name of ['common.js', 'map.js', 'charts.js', 'list.js', 'scores.js', 'choices.js']) {
  const filename = fileURLToPath(new URL(`../../../maclip_pyiqa/report/assets/${name}`, import.meta.url));
  vm.runInThisContext(readFileSync(filename, 'utf8'), { filename });
}

export const { Page, Rows, QualityMap, Histogram, Scatter, LongList, Scores } = vm.runInThisContext(
  '({ Page, Rows, QualityMap, Histogram, Scatter, LongList, Scores })',
);
