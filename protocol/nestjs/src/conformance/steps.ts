import assert from 'node:assert/strict';
import type { StepResult } from '@dudousxd/nestjs-durable-core';
import { Inbox, method, need, stepTask, type Bench } from './bench.js';
import type { Case } from './case.js';

const PAYLOADS: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1.5,
  Number.MAX_SAFE_INTEGER,
  Number.MIN_SAFE_INTEGER,
  1e300,
  '',
  'plain',
  'Grüße, 世界 🦊 \u0000 \u2028 "quoted" \\',
  [],
  {},
  [null, [[]], { a: [{ b: null }] }],
  { deeply: { nested: { list: [1, 'two', { three: 3 }] } }, 'key with ключ': 'value', '': 'empty key' },
];

async function ready(bench: Bench): Promise<Inbox<StepResult>> {
  const results = new Inbox<StepResult>();
  bench.operator.onResult(results.take);
  await bench.operator.ready?.();
  await bench.worker.ready?.();
  return results;
}

export const STEPS: readonly Case[] = [
  {
    name: 'a step runs with its input, and its output comes back under its ids',
    async run(bench) {
      bench.worker.handle('charge:card', (input) => Promise.resolve({ charged: input }));
      const results = await ready(bench);
      await bench.operator.dispatch(stepTask('charge:card', 'run-1', { seq: 7, input: { cents: 1250 } }));
      const [result] = await results.until(1);
      const { startedAt, ...rest } = result as StepResult;
      assert.deepEqual(rest, {
        runId: 'run-1',
        seq: 7,
        stepId: 'run-1:7',
        status: 'completed',
        output: { charged: { cents: 1250 } },
      });
      assert.equal(typeof startedAt, 'number');
    },
  },
  {
    name: 'any JSON value arrives as it was sent, both ways',
    async run(bench) {
      bench.worker.handle('echo', (input) => Promise.resolve(input));
      const results = await ready(bench);
      for (const [seq, input] of PAYLOADS.entries()) {
        await bench.operator.dispatch(stepTask('echo', 'run-1', { seq, input }));
      }
      const found = [...(await results.until(PAYLOADS.length))].sort((a, b) => a.seq - b.seq);
      assert.deepEqual(
        found.map(({ output }) => output ?? null),
        PAYLOADS,
      );
    },
  },
  {
    name: 'a payload of a megabyte arrives as it was sent, both ways',
    async run(bench) {
      bench.worker.handle('echo', (input) => Promise.resolve(input));
      const results = await ready(bench);
      const input = 'ü'.repeat(512 * 1024);
      await bench.operator.dispatch(stepTask('echo', 'run-1', { input }));
      const [result] = await results.until(1);
      assert.ok(result?.output === input, 'the output differs from the input');
    },
  },
  {
    name: 'a step that throws fails with its message, its code and whether it may be retried',
    async run(bench) {
      bench.worker.handle('refuse', () =>
        Promise.reject(Object.assign(new Error('card declined'), { code: 'declined', retryable: false })),
      );
      const results = await ready(bench);
      await bench.operator.dispatch(stepTask('refuse', 'run-1'));
      const [result] = await results.until(1);
      assert.equal(result?.status, 'failed');
      const { message, code, retryable } = result?.error ?? {};
      assert.deepEqual({ message, code, retryable }, { message: 'card declined', code: 'declined', retryable: false });
    },
  },
  {
    name: 'what a step logs comes with its result, in order',
    async run(bench) {
      bench.worker.handle('talk', async (_input, log) => {
        log?.info('first');
        log?.sub('part', 'ok', 'second');
        return null;
      });
      const results = await ready(bench);
      await bench.operator.dispatch(stepTask('talk', 'run-1'));
      const [result] = await results.until(1);
      assert.deepEqual(
        result?.events?.map(({ level, message, name, status }) => ({ level, message, name, status })),
        [
          { level: 'info', message: 'first', name: undefined, status: undefined },
          { level: 'info', message: 'second', name: 'part', status: 'ok' },
        ],
      );
    },
  },
  {
    name: 'each task runs once when two workers serve its name',
    async run(bench) {
      const second = await need(bench.openWorker, 'the bench opens no second worker').call(bench);
      const runs = new Map<string, number>();
      const count = (input: unknown) => {
        runs.set(String(input), (runs.get(String(input)) ?? 0) + 1);
        return Promise.resolve(null);
      };
      bench.worker.handle('count', count);
      second.handle('count', count);
      await second.ready?.();
      const results = await ready(bench);
      const tasks = Array.from({ length: 100 }, (_, seq) => stepTask('count', 'run-1', { seq, input: `task ${seq}` }));
      await Promise.all(tasks.map((task) => bench.operator.dispatch(task)));
      await results.until(tasks.length);
      assert.deepEqual(
        [...runs].sort(),
        tasks.map(({ input }): [string, number] => [String(input), 1]).sort(),
      );
      assert.equal(results.all.length, tasks.length);
    },
  },
  {
    name: 'a result handler that rejects is called again, and no other result is lost',
    async run(bench) {
      need(bench.redelivers, 'the bench does not state that rejected messages come again');
      bench.worker.handle('echo', (input) => Promise.resolve(input));
      const applied = new Inbox<number>();
      const refusals = new Map<number, number>();
      method(bench.operator, 'onResult')(async ({ seq }) => {
        const refused = refusals.get(seq) ?? 0;
        if (seq % 5 === 0 && refused < 2) {
          refusals.set(seq, refused + 1);
          throw new Error('the database is away');
        }
        await applied.take(seq);
      });
      await bench.operator.ready?.();
      await bench.worker.ready?.();
      for (let seq = 0; seq < 20; seq += 1) await bench.operator.dispatch(stepTask('echo', `run-${seq}`, { seq }));
      await applied.until(20);
      assert.deepEqual(
        [...new Set(applied.all)].sort((a, b) => a - b),
        Array.from({ length: 20 }, (_, seq) => seq),
      );
      assert.deepEqual([...refusals.values()], [2, 2, 2, 2]);
    },
  },
];
