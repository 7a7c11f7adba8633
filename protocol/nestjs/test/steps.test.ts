/** Steps that the transport serves: at least once, and not more often than it must be. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Heartbeat, RunDetail, RunRequest, StepResult } from '@dudousxd/nestjs-durable-core';
import { eventually, Gate, Inbox, stepTask } from '../src/conformance/bench.js';
import type { RabbitMQTransport } from '../src/index.js';
import { inLab, type Lab } from './rabbitmq.js';

interface Entry {
  seq: number;
  status: string;
  attempts: number;
}

/** An operator that answers what it knows of a run. */
async function operatorIn(lab: Lab, runStatus: string, timeline: Entry[]) {
  const transport = lab.open();
  const results = new Inbox<StepResult>();
  const asked = new Inbox<RunRequest>();
  transport.onResult(results.take);
  transport.onRunRequest(async (request) => {
    await asked.take(request);
    const data = { run: { status: runStatus }, timeline } as unknown as RunDetail;
    await transport.publishRunReply({ requestId: request.requestId, result: { ok: true, data } });
  });
  return { transport, results, asked };
}

async function workerIn(lab: Lab, options: object = {}): Promise<{ worker: RabbitMQTransport; runs: Inbox<unknown> }> {
  const worker = lab.open(options);
  const runs = new Inbox<unknown>();
  worker.handle('charge', async (input) => {
    await runs.take(input);
    return `ran ${runs.all.length}`;
  });
  await worker.ready();
  return { worker, runs };
}

const drained = (lab: Lab) => eventually('an empty queue', async () => (await lab.depthOf(lab.names.tasks('charge'))) === 0);

describe('a task that may have been answered', () => {
  const SETTLED: [string, string, Entry[]][] = [
    ['its seq is resolved', 'running', [{ seq: 0, status: 'completed', attempts: 1 }]],
    ['its seq has failed', 'running', [{ seq: 0, status: 'failed', attempts: 1 }]],
    ['its seq is at a later attempt', 'running', [{ seq: 0, status: 'pending', attempts: 2 }]],
    ['its run has ended', 'cancelled', [{ seq: 0, status: 'pending', attempts: 1 }]],
  ];
  for (const [reason, status, timeline] of SETTLED) {
    it(`is not run when the operator says that ${reason}`, inLab(async (lab) => {
      const { transport, results, asked } = await operatorIn(lab, status, timeline);
      const { runs } = await workerIn(lab);
      await transport.resend(stepTask('charge', 'run-1'));
      await eventually('the verdict', () => lab.lines.of('repeated_step_skipped').length === 1);
      await drained(lab);
      assert.deepEqual([runs.all, results.all], [[], []]);
      assert.deepEqual(asked.all.map(({ tenant, body }) => [tenant, body]), [['default', { kind: 'getRunDetail', runId: 'run-1' }]]);
    }));
  }

  it('is run when the operator still waits for it after a second look', inLab(async (lab) => {
    const { transport, results, asked } = await operatorIn(lab, 'suspended', [{ seq: 0, status: 'pending', attempts: 1 }]);
    const { runs } = await workerIn(lab);
    await transport.resend(stepTask('charge', 'run-1'));
    await results.until(1);
    assert.deepEqual([runs.all.length, asked.all.length], [1, 2]);
  }));

  it('is asked about when another process had it before', inLab(async (lab) => {
    const { transport, asked } = await operatorIn(lab, 'running', [{ seq: 0, status: 'completed', attempts: 1 }]);
    const queue = lab.names.tasks('charge');
    await lab.declare(queue);
    await transport.dispatch(stepTask('charge', 'run-1'));
    // Taken, and given back without an answer: what a worker leaves behind when it dies.
    const channel = await lab.raw.acquire();
    await eventually('the task', async () => (await channel.basicGet({ queue })) !== undefined);
    await channel.close();
    const { runs } = await workerIn(lab);
    await asked.until(1);
    await drained(lab);
    assert.deepEqual(runs.all, []);
  }));

  it('is answered from memory when this process has finished it', inLab(async (lab) => {
    const { transport, results, asked } = await operatorIn(lab, 'running', []);
    const { runs } = await workerIn(lab);
    await transport.dispatch(stepTask('charge', 'run-1'));
    await results.until(1);
    await transport.resend(stepTask('charge', 'run-1'));
    await results.until(2);
    assert.deepEqual(results.all[1], results.all[0]);
    assert.equal(results.all[0]?.output, 'ran 1');
    assert.deepEqual([runs.all.length, asked.all.length], [1, 0]);
  }));

  it('is run for a further attempt', inLab(async (lab) => {
    const { transport, results } = await operatorIn(lab, 'running', []);
    await workerIn(lab);
    await transport.dispatch(stepTask('charge', 'run-1'));
    await transport.dispatch(stepTask('charge', 'run-1', { attempt: 2 }));
    assert.deepEqual((await results.until(2)).map(({ output }) => output), ['ran 1', 'ran 2']);
  }));

  it('does not fail a further attempt by the failure of the one before', inLab(async (lab) => {
    const { transport, results } = await operatorIn(lab, 'running', []);
    const worker = lab.open();
    const [first, second] = [new Gate(), new Gate()];
    let runs = 0;
    worker.handle('charge', async () => {
      runs += 1;
      if (runs === 1) {
        await first.opened;
        throw new Error('too late');
      }
      await second.opened;
      return 'paid';
    });
    await worker.ready();
    await transport.dispatch(stepTask('charge', 'run-1'));
    await transport.dispatch(stepTask('charge', 'run-1', { attempt: 2 }));
    await eventually('both run', () => runs === 2);
    first.open();
    await eventually('the failure was taken', async () => (await lab.depthOf(lab.names.results)) === 0);
    second.open();
    assert.deepEqual((await results.until(1)).map(({ output }) => output), ['paid']);
  }));

  it('runs once when it comes a second time while it runs', inLab(async (lab) => {
    const { transport, results } = await operatorIn(lab, 'running', []);
    const worker = lab.open();
    const gate = new Gate();
    const runs = new Inbox<unknown>();
    worker.handle('slow', async (input) => {
      await runs.take(input);
      await gate.opened;
      return 'done';
    });
    await worker.ready();
    await transport.dispatch(stepTask('slow', 'run-1'));
    await runs.until(1);
    await transport.resend(stepTask('slow', 'run-1'));
    await eventually('both taken', async () => (await lab.depthOf(lab.names.tasks('slow'))) === 0);
    gate.open();
    await results.until(2);
    assert.equal(runs.all.length, 1);
  }));
});

describe('a worker', () => {
  it('sends heartbeats for a step from the moment that it holds it, slot or not', inLab(async (lab) => {
    const { transport } = await operatorIn(lab, 'running', []);
    const beats = new Inbox<Heartbeat>();
    transport.onHeartbeat(beats.take);
    const worker = lab.open({ concurrency: 1 });
    const gate = new Gate();
    for (const name of ['first', 'second']) worker.handle(name, () => gate.opened);
    await Promise.all([worker.ready(), transport.ready()]);
    await transport.dispatch(stepTask('first', 'run-1'));
    await transport.dispatch(stepTask('second', 'run-2'));
    await beats.until(2);
    gate.open();
    assert.deepEqual(beats.all.map(({ runId, stepId, group }) => [runId, stepId, group]).sort(), [
      ['run-1', 'run-1:0', 'first'],
      ['run-2', 'run-2:0', 'second'],
    ]);
  }));

  it('runs no more steps at once than it has slots, over all names', inLab(async (lab) => {
    const { transport, results } = await operatorIn(lab, 'running', []);
    const worker = lab.open({ concurrency: 3 });
    let running = 0;
    let most = 0;
    const work = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise((resolve) => setImmediate(resolve));
      running -= 1;
    };
    for (const name of ['a', 'b']) worker.handle(name, work);
    await worker.ready();
    for (let seq = 0; seq < 30; seq += 1) await transport.dispatch(stepTask(seq % 2 ? 'a' : 'b', 'run-1', { seq }));
    await results.until(30);
    assert.ok(most <= 3, `${most} at once`);
  }));

  it('serves its partition only', inLab(async (lab) => {
    const { transport, results } = await operatorIn(lab, 'running', []);
    const { runs } = await workerIn(lab, { partition: 'eu' });
    await transport.dispatch(stepTask('charge', 'run-1'));
    await transport.dispatch(stepTask('charge', 'run-2', { group: 'charge@eu' }));
    const [result] = await results.until(1);
    assert.equal(result?.runId, 'run-2');
    assert.equal(runs.all.length, 1);
    assert.equal(await lab.depthOf(lab.names.tasks('charge')), 1);
  }));

  it('with many steps warns of no leak', inLab(async (lab) => {
    const warnings: string[] = [];
    const note = ({ message }: Error) => void warnings.push(message);
    process.on('warning', note);
    const worker = lab.open();
    for (let index = 0; index < 15; index += 1) worker.handle(`step-${index}`, () => null);
    await worker.ready();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', note);
    assert.deepEqual(warnings, []);
  }));
});

describe('an operator', () => {
  it('handles the results of one run one after the other, those of others meanwhile', inLab(async (lab) => {
    const transport = lab.open();
    const log = new Inbox<string>();
    const gate = new Gate();
    transport.onResult(async ({ runId, seq }) => {
      await log.take(`begin ${runId}:${seq}`);
      if (runId === 'slow' && seq === 0) await gate.opened;
      await log.take(`end ${runId}:${seq}`);
    });
    await transport.ready();
    for (const [runId, seq] of [['slow', 0], ['slow', 1], ['quick', 0]] as const) {
      const result = { runId, seq, stepId: `${runId}:${seq}`, status: 'completed' };
      await lab.publish(lab.names.results, 'step-result', result, { messageId: `${runId}:${seq}:1` });
    }
    await eventually('the quick one', () => log.all.includes('end quick:0'));
    assert.ok(!log.all.includes('begin slow:1'));
    gate.open();
    await log.until(6);
    assert.ok(log.all.indexOf('end slow:0') < log.all.indexOf('begin slow:1'));
  }));

  it('acknowledges a result that the engine says is stored, while its handler still has the run', inLab(async (lab) => {
    const transport = lab.open();
    const begun = new Inbox<string>();
    const gate = new Gate();
    transport.onResult(async ({ stepId }) => {
      await begun.take(stepId);
      await gate.opened;
    });
    await transport.ready();
    const answer = (runId: string, seq: number) => {
      const result = { runId, seq, stepId: `${runId}:${seq}`, status: 'completed' };
      return lab.publish(lab.names.results, 'step-result', result, { messageId: `${runId}:${seq}:1` });
    };
    const stored = (runId: string) =>
      transport.publishControl({ kind: 'event', event: { type: 'step.completed', runId, seq: 0, at: new Date() } });
    const isEmpty = async () => (await lab.depthOf(lab.names.results)) === 0;

    // As many as are given out at once, and one that has to wait for an acknowledgement.
    for (let run = 0; run <= 200; run += 1) await answer(`run-${run}`, 0);
    await begun.until(200);
    await eventually('one waits', async () => (await lab.depthOf(lab.names.results)) === 1);
    await stored('run-0');
    await begun.until(201);

    await answer('run-0', 1);
    await stored('run-1');
    await eventually('the second input of a run is given out', isEmpty);
    assert.ok(!begun.all.includes('run-0:1'));
    gate.open();
    await begun.until(202);
  }));

  it('keeps a result in the queue for as long as its handler rejects', inLab(async (lab) => {
    const transport = lab.open();
    const refused = new Inbox<number>();
    transport.onResult(async () => {
      await refused.take(Date.now());
      throw new Error('the database is away');
    });
    await transport.ready();
    const result = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed' };
    await lab.publish(lab.names.results, 'step-result', result, { messageId: 'run-1:0:1' });
    // Longer than the time after which a handler that still runs is trusted.
    await eventually('six seconds of refusals', () => (refused.all.at(-1) ?? 0) - (refused.all[0] ?? 0) > 6_000);
    await transport.close();
    assert.equal(await lab.depthOf(lab.names.results), 1);
  }));

  it('consumes nothing before it is started', inLab(async (lab) => {
    const transport = lab.open({ autoStart: false });
    const results = new Inbox<StepResult>();
    transport.onResult(results.take);
    const result = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed' } as const;
    await lab.publish(lab.names.results, 'step-result', result, { messageId: 'run-1:0:1' });
    await transport.ready();
    assert.equal(await lab.depthOf(lab.names.results), 1);
    await transport.start();
    assert.deepEqual(await results.until(1), [result]);
  }));

  it('sends to a queue that was deleted under it', inLab(async (lab) => {
    const transport = lab.open();
    await transport.dispatch(stepTask('charge', 'run-1'));
    await lab.raw.queueDelete({ queue: lab.names.tasks('charge') });
    await transport.dispatch(stepTask('charge', 'run-1', { seq: 1 }));
    assert.equal(await lab.depthOf(lab.names.tasks('charge')), 1);
    assert.equal(lab.lines.of('message_not_sent').length, 1);
  }));

  it('consumes again from a queue that was deleted under it', inLab(async (lab) => {
    const transport = lab.open();
    const results = new Inbox<StepResult>();
    transport.onResult(results.take);
    await transport.ready();
    await lab.raw.queueDelete({ queue: lab.names.results });
    await eventually('the loss', () => lab.lines.of('consumer_interrupted').length > 0);
    const result = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed' } as const;
    await lab.publish(lab.names.results, 'step-result', result, { messageId: 'run-1:0:1' });
    assert.deepEqual(await results.until(1), [result]);
  }));

  it('dispatches nothing once it is closed, and says why', inLab(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    await transport.close();
    await assert.rejects(transport.dispatch(stepTask('charge', 'run-1')), { name: 'TransportClosedError' });
    assert.throws(() => transport.onResult(async () => undefined), { name: 'TransportClosedError' });
  }));

  it('tells what a queue declared otherwise needs, and sends once it is gone', inLab(async (lab) => {
    const transport = lab.open();
    const queue = lab.names.tasks('charge');
    await lab.raw.queueDeclare({ queue, durable: true });
    const sent = transport.dispatch(stepTask('charge', 'run-1'));
    await eventually('the advice', () => lab.lines.of('message_not_sent').some(({ level }) => level === 'error'));
    const [line] = lab.lines.of('message_not_sent');
    assert.equal(line?.fields['queue'], queue);
    assert.equal(line?.fields['next'], 'delete the queue, or use another prefix; trying again');
    await lab.raw.queueDelete({ queue });
    await sent;
  }));
});
