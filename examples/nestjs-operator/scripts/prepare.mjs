// Makes `npm start` work from a fresh clone: installs, builds the transport, compiles. Needs npm only.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('..', import.meta.url));
const transport = resolve(here, '../../protocol/nestjs');

if (Number(process.versions.node.split('.')[0]) < 20) {
  stop(`Node.js 20 or newer is needed; this is ${process.version}`);
}

install(transport);
const sources = ['src', '../schemas', 'package-lock.json'].map((name) => join(transport, name));
if (changedAt(join(transport, 'dist/index.js')) < Math.max(...sources.map(changedAt))) {
  npm(transport, 'building the RabbitMQ transport', 'run', 'build');
}
install(here);
run(here, process.execPath, join(here, 'node_modules/typescript/bin/tsc'));

function install(folder) {
  const installed = changedAt(join(folder, 'node_modules/.package-lock.json'));
  if (installed >= changedAt(join(folder, 'package-lock.json'))) return;
  npm(folder, `installing ${folder}`, 'ci', '--loglevel=error');
}

function npm(folder, what, ...args) {
  console.log(`${what} ...`);
  run(folder, 'npm', ...args);
}

function run(folder, program, ...args) {
  try {
    const isQuiet = program === 'npm';
    execFileSync(program, args, { cwd: folder, stdio: ['ignore', isQuiet ? 'pipe' : 'inherit', 'inherit'] });
  } catch (error) {
    process.stderr.write(error.stdout ?? '');
    stop(`${[program, ...args].join(' ')} failed in ${folder}`);
  }
}

/** Of a folder: when its newest file changed. 0 if there is none. */
function changedAt(path) {
  if (!existsSync(path)) return 0;
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => changedAt(join(path, name))));
}

function stop(reason) {
  console.error(`error: ${reason}`);
  process.exit(1);
}
