import assert from 'node:assert/strict';
import type { RunReply, StartRunMessage } from '@dudousxd/nestjs-durable-core';
import { eventually, Inbox, method, need } from './bench.js';
import type { Case } from './case.js';

const START: StartRunMessage = {
  tenant: 'acme',
  workflow: 'checkout',
  input: { order: 1 },
  runId: 'order:1 / ñ',
  tags: ['web'],
  searchAttributes: { tier: 'pro', cents: 1250, isFirst: true },
};

export const CLIENTS: readonly Case[] = [
  {
    name: 'a start reaches one operator whole, with its run id as it is',
    async run(bench) {
      const start = method(bench.operator, 'dispatchStartRun');
      const operators = [bench.operator, ...(bench.openOperator === undefined ? [] : [await bench.openOperator()])];
      const inbox = new Inbox<StartRunMessage>();
      for (const operator of operators) method(operator, 'onStartRun')(inbox.take);
      await Promise.all(operators.map((operator) => operator.ready?.()));
      await start(START);
      await start({ ...START, runId: 'order:2' });
      const found = [...(await inbox.until(2))].sort((a, b) => String(a.runId).localeCompare(String(b.runId)));
      assert.deepEqual(found, [START, { ...START, runId: 'order:2' }]);
    },
  },
  {
    name: 'a start that comes again has the same run id, stated by the client or not',
    async run(bench) {
      need(bench.redelivers, 'the bench does not state that rejected messages come again');
      const start = method(bench.operator, 'dispatchStartRun');
      const seen = new Map<string, (string | undefined)[]>();
      const applied = new Inbox<string>();
      method(bench.operator, 'onStartRun')(async ({ workflow, runId }) => {
        const ids = seen.get(workflow) ?? [];
        seen.set(workflow, [...ids, runId]);
        if (ids.length === 0) throw new Error('the database is away');
        await applied.take(workflow);
      });
      await bench.operator.ready?.();
      await start(START);
      await start({ tenant: 'acme', workflow: 'unnamed', input: null });
      await applied.until(2);
      assert.deepEqual(seen.get('checkout'), [START.runId, START.runId]);
      const [first, second] = seen.get('unnamed') ?? [];
      assert.ok(first, 'a start without a run id has none by which it can be told apart');
      assert.equal(second, first);
    },
  },
  {
    name: 'each of several askers gets the replies to its own requests',
    async run(bench) {
      const onRequest = method(bench.operator, 'onRunRequest');
      const reply = method(bench.operator, 'publishRunReply');
      const askers = [bench.operator, ...(bench.openOperator === undefined ? [] : [await bench.openOperator()])];
      onRequest(async ({ requestId, tenant, body }) => {
        const runId = body.kind === 'getRunDetail' ? body.runId : undefined;
        await reply({
          requestId,
          result: runId === 'missing' ? { ok: false, error: { message: 'no such run', code: 'not_found' } } : { ok: true, data: { tenant, runId } },
        });
      });
      const replies = askers.map((asker) => {
        const found = new Map<string, RunReply>();
        method(asker, 'onRunReply')((each) => void found.set(each.requestId, each));
        return found;
      });
      await Promise.all(askers.map((asker) => asker.ready?.()));
      await Promise.all(
        askers.map(async (asker, index) => {
          const ask = method(asker, 'dispatchRunRequest');
          const ids = Array.from({ length: 20 }, (_, each) => `${index}/${each}`);
          await Promise.all(
            ids.map((id) => ask({ requestId: id, tenant: `tenant-${index}`, body: { kind: 'getRunDetail', runId: `run ${id}` } })),
          );
          await ask({ requestId: `${index}/missing`, tenant: 'acme', body: { kind: 'getRunDetail', runId: 'missing' } });
        }),
      );
      for (const [index, found] of replies.entries()) {
        for (let each = 0; each < 20; each += 1) {
          const id = `${index}/${each}`;
          const data = { tenant: `tenant-${index}`, runId: `run ${id}` };
          await eventually(`the reply to ${id}`, () => found.has(id));
          assert.deepEqual(found.get(id), { requestId: id, result: { ok: true, data } });
        }
        await eventually('the refusal', () => found.has(`${index}/missing`));
        assert.deepEqual(found.get(`${index}/missing`)?.result, {
          ok: false,
          error: { message: 'no such run', code: 'not_found' },
        });
      }
    },
  },
];
