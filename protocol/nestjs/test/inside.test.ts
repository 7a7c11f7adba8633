/** Parts of the transport that hold no connection. */
import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import type { WorkflowStepEvent } from '@dudousxd/nestjs-durable-core';
import { batchWrites } from '../src/batching.js';
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

describe('batched writes', () => {
  /** A socket that notes what goes to the system at once. */
  class Noting extends Writable {
    readonly calls: string[][] = [];

    override _write(chunk: Buffer, _encoding: unknown, done: () => void): void {
      this.calls.push([chunk.toString()]);
      done();
    }

    override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
      this.calls.push(chunks.map(({ chunk }) => chunk.toString()));
      done();
    }
  }

  const send = (socket: Writable, ...frames: string[]): void => {
    socket.cork();
    for (const frame of frames) socket.write(frame);
    socket.uncork();
  };

  it('go out together at the end of the turn, in order', async () => {
    const socket = new Noting();
    const isHeld = batchWrites(socket);
    send(socket, 'a', 'b');
    await Promise.resolve();
    send(socket, 'c');
    assert.deepEqual([socket.calls, isHeld()], [[], true]);
    await turn();
    assert.deepEqual([socket.calls, isHeld()], [[['a', 'b', 'c']], false]);
    send(socket, 'd');
    await turn();
    assert.deepEqual(socket.calls, [['a', 'b', 'c'], ['d']]);
  });

  it('wait for as long as somebody else holds them back', async () => {
    const socket = new Noting();
    batchWrites(socket);
    socket.cork(); // as the client does while the broker blocks it
    send(socket, 'a');
    await turn();
    assert.deepEqual([socket.calls, socket.writableCorked], [[], 1]);
    socket.uncork();
    assert.deepEqual(socket.calls, [['a']]);
  });

  it('are not lost at the end', async () => {
    const socket = new Noting();
    batchWrites(socket);
    send(socket, 'a');
    socket.end('b');
    await turn();
    assert.deepEqual(socket.calls.flat(), ['a', 'b']);
  });
});
