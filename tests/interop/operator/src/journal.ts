import { appendFileSync } from 'node:fs';

/** Tell the tests, outside of everything that is durable, what really happened. */
export function journal(what: string, attempt: string): void {
  const path = process.env['INTEROP_JOURNAL'];
  if (!path) return;
  const entry = { what, attempt, pid: process.pid, at: Date.now() };
  appendFileSync(path, `${JSON.stringify(entry)}\n`);
}
