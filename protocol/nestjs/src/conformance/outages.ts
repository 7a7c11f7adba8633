import assert from 'node:assert/strict';
import type { ControlMessage, Heartbeat, StepResult } from '@dudousxd/nestjs-durable-core';
import { eventually, Gate, Inbox, method, need, stepTask, type OperatorSide } from './bench.js';
import type { Case } from './case.js';

const stepIdsOf = (results: readonly StepResult[]): Set<string> => new Set(results.map(({ stepId }) => stepId));

/** A worker may ask before it runs what another may have run: this operator knows of no such run. */
function answerNothing(operator: OperatorSide): void {
  operator.onRunRequest?.(async ({ requestId }) => {
    await operator.publishRunReply?.({ requestId, result: { ok: false, error: { message: 'no such run' } } });
  });
}

export const OUTAGES: readonly Case[] = [
  {
    name: 'every step is answered when a worker is closed under load and another takes over',
    async run(bench) {
      const openWorker = need(bench.openWorker, 'the bench opens no second worker').bind(bench);
      const close = method(bench.worker, 'close');
      const closing = new Gate();
      const held = new Inbox<unknown>();
      let ran = 0;
      bench.worker.handle('work', async (input) => {
        ran += 1;
        if (ran <= 50) return input;
        await held.take(input);
        await closing.opened;
        return input;
      });
      const results = new Inbox<StepResult>();
      bench.operator.onResult(results.take);
      answerNothing(bench.operator);
      await Promise.all([bench.operator.ready?.(), bench.worker.ready?.()]);
      const tasks = Array.from({ length: 200 }, (_, seq) => stepTask('work', 'run-1', { seq, input: seq }));
      await Promise.all(tasks.map((task) => bench.operator.dispatch(task)));
      await results.until(50);
      await held.until(1);
      const closed = close();
      const second = await openWorker();
      second.handle('work', (input) => Promise.resolve(input));
      await second.ready?.();
      closing.open();
      await closed;
      await eventually('an answer to each', () => stepIdsOf(results.all).size === tasks.length);
      assert.ok(results.all.every(({ status, output, seq }) => status === 'completed' && output === seq));
    },
  },
  {
    name: 'what is dispatched during an outage arrives after it',
    async run(bench) {
      const outage = need(bench.outage, 'the bench has no outages').bind(bench);
      bench.worker.handle('echo', (input) => Promise.resolve(input));
      const results = new Inbox<StepResult>();
      bench.operator.onResult(results.take);
      answerNothing(bench.operator);
      await Promise.all([bench.operator.ready?.(), bench.worker.ready?.()]);
      const end = await outage();
      const isSettled = new Inbox<void>();
      const sent = Array.from({ length: 10 }, (_, seq) =>
        bench.operator.dispatch(stepTask('echo', 'run-1', { seq, input: seq })).then(() => isSettled.take()),
      );
      assert.equal(isSettled.all.length, 0);
      await end();
      await Promise.all(sent);
      await eventually('an answer to each', () => stepIdsOf(results.all).size === 10);
    },
  },
  {
    name: 'all is answered when connections are cut in the middle, and everything is heard again',
    async run(bench) {
      const interrupt = need(bench.interrupt, 'the bench cuts no connections').bind(bench);
      const cut = new Gate();
      let ran = 0;
      bench.worker.handle('work', async (input) => {
        ran += 1;
        if (ran > 30) await cut.opened;
        return input;
      });
      const results = new Inbox<StepResult>();
      const beats = new Inbox<Heartbeat>();
      const control = new Inbox<ControlMessage>();
      bench.operator.onResult(results.take);
      answerNothing(bench.operator);
      bench.operator.onHeartbeat(beats.take);
      bench.operator.onControl?.((message) => void control.take(message));
      await Promise.all([bench.operator.ready?.(), bench.worker.ready?.()]);
      const tasks = Array.from({ length: 100 }, (_, seq) => stepTask('work', 'run-1', { seq, input: seq }));
      const sent = Promise.all(tasks.map((task) => bench.operator.dispatch(task)));
      await results.until(30);
      await interrupt();
      cut.open();
      await sent;
      await eventually('an answer to each', () => stepIdsOf(results.all).size === tasks.length);
      assert.ok(results.all.every(({ status, output, seq }) => status === 'completed' && output === seq));
      await eventually('a heartbeat', async () => {
        await bench.sendHeartbeat?.({ runId: 'after', seq: 0, group: 'work' });
        return bench.sendHeartbeat === undefined || beats.all.some(({ runId }) => runId === 'after');
      });
      await eventually('a control message', async () => {
        await bench.operator.publishControl?.({ kind: 'enqueued', runId: 'after' });
        return bench.operator.publishControl === undefined || control.all.some((each) => each.kind === 'enqueued');
      });
      await eventually('the worker', async () => {
        const groups = (await bench.operator.listWorkerGroups?.()) ?? ['work'];
        return groups.includes('work');
      });
    },
  },
];
