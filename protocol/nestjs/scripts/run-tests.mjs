// `node --test` on Node 20 takes no patterns.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';

const folder = new URL('../test/', import.meta.url).pathname;
const files = readdirSync(folder).filter((name) => name.endsWith('.test.ts'));
const chosen = process.argv.slice(2);
const run = spawnSync(
  process.execPath,
  ['--import', 'tsx', '--test', '--test-concurrency=1', '--test-reporter=spec', ...(chosen.length ? chosen : files.map((name) => folder + name))],
  { stdio: 'inherit' },
);
process.exit(run.status ?? 1);
