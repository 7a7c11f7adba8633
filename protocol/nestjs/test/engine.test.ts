/** The core's own engine on this transport. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InMemoryStateStore, WorkflowEngine, type RunStatus, type WorkflowCtx } from '@dudousxd/nestjs-durable-core';
import { eventually } from '../src/conformance/bench.js';
import type { RabbitMQTransport } from '../src/index.js';
import { inLab, type Lab } from './rabbitmq.js';

type Body = (ctx: WorkflowCtx, input: unknown) => Promise<unknown>;

async function operatorIn(lab: Lab, body: Body): Promise<{ engine: WorkflowEngine; transport: RabbitMQTransport }> {
  const transport = lab.open({ autoStart: false });
  const engine = new WorkflowEngine({ store: new InMemoryStateStore(), transport, controlPlane: transport });
  engine.register('flow', '1', body);
  return { engine, transport };
}

async function ended(engine: WorkflowEngine, status: RunStatus, withinMs?: number): Promise<unknown> {
  await eventually(`status ${status}`, async () => (await engine.getRun('run-1'))?.status === status, withinMs);
  return (await engine.getRun('run-1'))?.output;
}

describe('an engine on RabbitMQ', () => {
  it('runs a workflow of several steps to its end', inLab(async (lab) => {
    const { engine, transport } = await operatorIn(lab, async (ctx, input) => {
      const doubled = await ctx.step('double', input);
      return Promise.all([ctx.step('double', doubled), ctx.step('double', 10)]);
    });
    transport.handle('double', (input) => Number(input) * 2);
    await transport.start();
    await engine.start('flow', 1, 'run-1');
    assert.deepEqual(await ended(engine, 'completed'), [4, 20]);
  }));

  it('retries a failed step under the same id with the next attempt', inLab(async (lab) => {
    const { engine, transport } = await operatorIn(lab, (ctx) => ctx.step('flaky', null, { retries: 3 }));
    let runs = 0;
    transport.handle('flaky', () => {
      runs += 1;
      if (runs < 3) throw new Error('busy');
      return runs;
    });
    await transport.start();
    await engine.start('flow', null, 'run-1');
    await eventually('three attempts', async () => {
      await engine.resumeDueTimers();
      return (await engine.getRun('run-1'))?.status === 'completed';
    });
    assert.equal(runs, 3);
  }));

  it('hands a result to a body that awaits it inside the handler of an earlier one', inLab(async (lab) => {
    const { engine, transport } = await operatorIn(lab, async (ctx) => {
      const first = await ctx.step('double', 1);
      return ctx.step('double', first, { timeoutMs: 10_000 });
    });
    transport.handle('double', (input) => Number(input) * 2);
    await transport.start();
    await engine.start('flow', null, 'run-1');
    // Sooner than the time after which a handler that still runs is trusted.
    await ended(engine, 'completed', 4_000);
  }));

  it('fails the run of a result that cannot be read', inLab(async (lab) => {
    const { engine, transport } = await operatorIn(lab, (ctx) => ctx.step('elsewhere', null));
    await transport.start();
    await engine.start('flow', null, 'run-1');
    await eventually('the task', async () => (await lab.depthOf(lab.names.tasks('elsewhere'))) === 1);
    await lab.publish(lab.names.results, 'step-result', { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: '?' });
    await ended(engine, 'failed');
    assert.match(String((await engine.getRun('run-1'))?.error?.message), /poison message: step-result at \/status/);
  }));

  it('starts one run for a start that comes twice', inLab(async (lab) => {
    const { engine, transport } = await operatorIn(lab, async (_ctx, input) => input);
    await transport.start();
    const start = { tenant: 'acme', workflow: 'flow', input: 'once', runId: 'run-1' };
    await transport.dispatchStartRun(start);
    await transport.dispatchStartRun({ ...start, input: 'twice' });
    assert.equal(await ended(engine, 'completed'), 'once');
    assert.equal((await engine.getRun('run-1'))?.namespace, 'acme');
  }));

  it('undoes a step whose run fails', inLab(async (lab) => {
    const { engine, transport } = await operatorIn(lab, async (ctx) => {
      await ctx.step('book', 1, { compensate: 'unbook' });
      throw new Error('sold out');
    });
    const undone: unknown[] = [];
    transport.handle('book', () => 'booked');
    transport.handle('unbook', (input) => void undone.push(input));
    await transport.start();
    await engine.start('flow', null, 'run-1');
    await ended(engine, 'failed', 5_000);
    assert.deepEqual(undone, [{ input: 1, output: 'booked' }]);
  }));
});
