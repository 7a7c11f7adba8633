/** Parts of the transport that hold no connection. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { WorkflowStepEvent } from '@dudousxd/nestjs-durable-core';
import { Gate } from '../src/conformance/bench.js';
import { InOrder } from '../src/in-order.js';
import { LiveSteps } from '../src/live-steps.js';
import { Registry, type WorkerAnnouncement, type WorkerBeat } from '../src/registry.js';

const announcement = (more: object = {}): WorkerAnnouncement => ({
  groups: ['charge'],
  descriptor: {
    instanceId: 'worker-1',
    runtime: 'python',
    sdk: { name: 'durable-worker', version: '1' },
    workflows: [],
    steps: ['charge'],
    startedAt: 1,
    ...more,
  },
});

const beat = (more: Partial<WorkerBeat> = {}): WorkerBeat => ({
  instanceId: 'worker-1',
  groups: ['charge'],
  ts: 0,
  lifecycle: 'up',
  ...more,
});

describe('the registry', () => {
  it('counts a worker as gone after 35 silent seconds', () => {
    let now = 0;
    const registry = new Registry(() => now);
    registry.onAnnouncement(announcement());
    now = 35_000;
    assert.deepEqual(registry.groups(), ['charge']);
    now = 35_001;
    assert.deepEqual([registry.groups(), registry.beats(), registry.descriptors()], [[], [], []]);
  });

  it('asks for the descriptor of whom it does not know, and when a hash changes', () => {
    const registry = new Registry(() => 0);
    assert.equal(registry.onBeat(beat()), false);
    registry.onAnnouncement(announcement());
    assert.equal(registry.onBeat(beat({ descriptorHash: 'a' })), true);
    assert.equal(registry.onBeat(beat({ descriptorHash: 'a' })), true);
    assert.equal(registry.onBeat(beat({ descriptorHash: 'b' })), false);
  });

  it('takes the clock of its own, not that of a worker', () => {
    const registry = new Registry(() => 1_000_000);
    registry.onBeat(beat({ ts: 5 }));
    assert.deepEqual(registry.beats(), [{ group: 'charge', instanceId: 'worker-1', lastBeatAt: 1_000_000 }]);
  });

  it('tells which workers speak no version in common', () => {
    const registry = new Registry(() => 0);
    assert.equal(registry.onAnnouncement(announcement()), true);
    assert.equal(registry.onAnnouncement(announcement({ protocol: { version: 2, range: [1, 2] } })), true);
    assert.equal(registry.onAnnouncement(announcement({ protocol: { version: 2, range: [2, 2] } })), false);
  });

  it('knows the partitions that are served when another was asked for', () => {
    const registry = new Registry(() => 0);
    registry.onBeat(beat({ groups: ['charge@eu', 'charge@us', 'refund'] }));
    assert.deepEqual(registry.alternativesTo('charge'), ['charge@eu', 'charge@us']);
    assert.deepEqual(registry.alternativesTo('refund@eu'), ['refund']);
  });
});

describe('inputs of one run', () => {
  it('are handled one after the other, also after one that failed', async () => {
    const order = new InOrder();
    const log: string[] = [];
    const first = order.run('run-1', async () => {
      log.push('first');
      throw new Error('failed');
    });
    const second = order.run('run-1', async () => void log.push('second'));
    await assert.rejects(first, /failed/);
    await second;
    assert.deepEqual(log, ['first', 'second']);
  });

  it('of a step that an earlier handler awaits overtake that handler', async () => {
    const order = new InOrder();
    const dispatched = new Gate();
    const result = new Gate();
    const outer = order.run('run-1', async () => {
      order.noteDispatch('run-1', 'run-1:1');
      dispatched.open();
      await result.opened;
    });
    await dispatched.opened;
    await order.run('run-1', async () => result.open(), 'run-1:1');
    await outer;
  });
});

describe('live reports of steps', () => {
  const report = (more: Partial<WorkflowStepEvent> = {}): WorkflowStepEvent => ({
    runId: 'run-1',
    seq: 3,
    name: 'local',
    phase: 'running',
    startedAt: Date.now(),
    ...more,
  });

  it('are shown while they are fresh and their step is not recorded', () => {
    const live = new LiveSteps();
    assert.equal(live.isWelcome(report(), false), true);
    assert.equal(live.isWelcome(report(), true), false);
    assert.equal(live.isWelcome(report({ startedAt: Date.now() - 31_000 }), false), false);
    assert.equal(live.isWelcome(report({ startedAt: 1, finishedAt: Date.now() }), false), true);
    live.onDecision({ taskId: 't', runId: 'run-1', status: 'continue', commands: [{ kind: 'recordStep', seq: 3, name: 'local' }] });
    assert.equal(live.isWelcome(report(), false), false);
    assert.equal(live.isWelcome(report({ seq: 4 }), false), true);
  });
});
