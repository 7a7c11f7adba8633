/** Log lines that name what is wrong and what to change, not more than once a minute. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { eventually, stepTask } from '../src/conformance/bench.js';
import { inLab, Lab } from './rabbitmq.js';

const descriptorOf = (instanceId: string, more: object = {}) => ({
  groups: ['charge'],
  descriptor: {
    instanceId,
    runtime: 'python',
    sdk: { name: 'durable-worker', version: '1' },
    workflows: [],
    steps: ['charge'],
    startedAt: 1,
    ...more,
  },
});

async function seen(lab: Lab, event: string, count = 1): Promise<Record<string, unknown>[]> {
  await eventually(`${count} ${event}`, () => lab.lines.of(event).length >= count);
  return lab.lines.of(event).map(({ fields }) => fields);
}

describe('advice', () => {
  it('a task for a group without workers is told once, with what would serve it', inLab(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    for (let seq = 0; seq < 3; seq += 1) await transport.dispatch(stepTask('charge', 'run-1', { seq }));
    await transport.dispatch(stepTask('refund', 'run-1', { seq: 3 }));
    assert.deepEqual(await seen(lab, 'no_worker_for_group', 2), [
      {
        group: 'charge',
        queue: lab.names.tasks('charge'),
        liveGroups: [],
        next: `start a worker that serves charge; its prefix and namespace must make ${lab.prefix}-acme, its vhost be this one`,
      },
      {
        group: 'refund',
        queue: lab.names.tasks('refund'),
        liveGroups: [],
        next: `start a worker that serves refund; its prefix and namespace must make ${lab.prefix}-acme, its vhost be this one`,
      },
    ]);
  }, 'acme'));

  it('a task for the wrong partition names the one that is served', inLab(async (lab) => {
    const transport = lab.open();
    const worker = lab.open({ partition: 'eu' });
    worker.handle('payments:charge', () => null);
    await Promise.all([transport.ready(), worker.ready()]);
    await eventually('the worker', async () => (await transport.listWorkerGroups()).length === 1);
    await transport.dispatch(stepTask('payments:charge', 'run-1'));
    const [fields] = await seen(lab, 'no_worker_for_group');
    assert.deepEqual(fields?.['liveGroups'], ['payments-charge@eu']);
    assert.equal(
      fields?.['next'],
      'workers serve payments-charge@eu: start one on the partition of payments-charge, or call the step on theirs',
    );
  }));

  it('a task for a group that is served is not worth a line', inLab(async (lab) => {
    const transport = lab.open();
    transport.onResult(async () => undefined);
    transport.handle('charge', () => null);
    await transport.ready();
    await eventually('itself', async () => (await transport.listWorkerGroups()).length === 1);
    await transport.dispatch(stepTask('charge', 'run-1'));
    await transport.dispatch(stepTask('refund', 'run-1', { seq: 1 }));
    const lines = await seen(lab, 'no_worker_for_group');
    assert.deepEqual(lines.map(({ group }) => group), ['refund']);
  }));

  it('a worker of another protocol is told once, with who must be updated', inLab(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    const tomorrow = { protocol: { version: 3, range: [2, 3] } };
    for (let time = 0; time < 2; time += 1) {
      await lab.broadcast(lab.names.workers, 'worker-descriptor', descriptorOf('worker-1', tomorrow));
    }
    await lab.broadcast(lab.names.workers, 'worker-descriptor', descriptorOf('worker-2', tomorrow));
    const lines = await seen(lab, 'worker_incompatible', 2);
    assert.deepEqual(lines[0], {
      worker: 'worker-1',
      sdk: { name: 'durable-worker', version: '1' },
      workerSpeaks: '2 to 3',
      operatorSpeaks: '1 to 1',
      next: 'nothing is sent to it; update the operator',
    });
    assert.deepEqual(lines.map(({ worker }) => worker), ['worker-1', 'worker-2']);
  }));

  it('an announcement that cannot be understood is told once, with its sender and the reason', inLab(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    for (let time = 0; time < 2; time += 1) {
      await lab.broadcast(lab.names.workers, 'worker-descriptor', descriptorOf('worker-1', { runtime: 'cobol' }));
    }
    await lab.broadcast(lab.names.workers, 'worker-beat', { instanceId: 'worker-2', ts: 1, lifecycle: 'up' });
    const lines = await seen(lab, 'worker_not_understood', 2);
    assert.deepEqual(lines, [
      {
        worker: 'worker-1',
        reason: 'worker-descriptor at /descriptor/runtime must be equal to one of the allowed values',
        next: 'this worker is not counted as live; it must announce what the protocol requires',
      },
      {
        worker: 'worker-2',
        reason: "worker-beat must have required property 'groups' (groups)",
        next: 'this worker is not counted as live; it must announce what the protocol requires',
      },
    ]);
    assert.deepEqual(await transport.listWorkerGroups(), []);
  }));

  it('a worker that drains takes no more tasks, and one that stops is gone', inLab(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    await lab.broadcast(lab.names.workers, 'worker-descriptor', descriptorOf('worker-1'));
    await eventually('the worker', async () => (await transport.listWorkerGroups()).join() === 'charge');
    const beat = (lifecycle: string) => ({ instanceId: 'worker-1', groups: ['charge'], ts: Date.now(), lifecycle });
    await lab.broadcast(lab.names.workers, 'worker-beat', beat('draining'));
    await eventually('no group', async () => (await transport.listWorkerGroups()).length === 0);
    assert.equal((await transport.readAllWorkerHeartbeats()).length, 1);
    await lab.broadcast(lab.names.workers, 'worker-beat', beat('stopped'));
    await eventually('no beat', async () => (await transport.readAllWorkerHeartbeats()).length === 0);
  }));

  it('a broker out of reach is told once, without the password, and the registry answers empty', inLab(async (lab) => {
    const transport = lab.open({ url: 'amqp://shop:s3cret@127.0.0.1:1/' });
    const [fields] = await seen(lab, 'broker_unreachable');
    assert.equal(fields?.['broker'], 'amqp://127.0.0.1:1/');
    assert.deepEqual(await transport.listWorkerGroups(), []);
    assert.equal(lab.lines.of('broker_unreachable').length, 1);
    assert.ok(!JSON.stringify(lab.lines.all).includes('s3cret'));
  }));
});
