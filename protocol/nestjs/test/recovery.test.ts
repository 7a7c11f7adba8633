/** Runs that a killed operator left behind, on the core's own engine and memory store. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import type { WorkflowCtx, WorkflowRun } from '@dudousxd/nestjs-durable-core';
import { RunRecovery } from '../src/index.js';
import { MINUTE, SECOND, SILENCE, World } from './world.js';

beforeEach(() => mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 }));
afterEach(() => mock.timers.reset());

/** A run whose step was saved and never sent: its operator died in between. */
async function unsent(): Promise<World> {
  const world = new World();
  world.wire.isDying = true;
  await world.started('charging');
  world.wire.isDying = false;
  return world;
}

describe('a task that was promised and never sent', () => {
  it('is sent once, after two silent looks, under its own ids', async () => {
    const world = await unsent();
    mock.timers.tick(SILENCE);
    assert.deepEqual(await world.looks(4), [0, 1, 0, 0]);
    assert.deepEqual(world.wire.resent, [
      { runId: 'run-1', seq: 0, name: 'charge', stepId: 'run-1:0', group: 'charge', input: { cents: 1 }, attempt: 1 },
    ]);
    await world.wire.onResultHandler({ runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed', output: 'paid' });
    assert.equal((await world.run()).status, 'completed');
  });

  it('is left alone for as long as it may be on its way', async () => {
    const world = await unsent();
    assert.deepEqual(await world.looks(2, SILENCE / 3), [0, 0]);
    assert.deepEqual(world.wire.resent, []);
  });

  it('is left alone while its worker sends heartbeats', async () => {
    const world = await unsent();
    world.recovery.start();
    for (let minute = 0; minute < 4; minute += 1) {
      for (let beat = 0; beat < 6; beat += 1) {
        await world.wire.beat('run-1:0');
        await world.looks(1, 10 * SECOND);
      }
    }
    world.recovery.stop();
    assert.deepEqual(world.wire.resent, []);
    assert.deepEqual(await world.looks(3, SILENCE), [0, 1, 0]);
  });

  it('is left alone while results wait to be consumed', async () => {
    const world = await unsent();
    world.wire.isBacklogged = true;
    mock.timers.tick(SILENCE);
    assert.deepEqual(await world.looks(4), [0, 0, 0, 0]);
    world.wire.isBacklogged = false;
    assert.deepEqual(await world.looks(2), [0, 1]);
  });

  it('is left alone while tasks wait in its queue', async () => {
    const world = await unsent();
    world.wire.depths.set('charge', 1);
    mock.timers.tick(SILENCE);
    assert.deepEqual(await world.looks(4), [0, 0, 0, 0]);
    world.wire.depths.set('charge', 0);
    assert.deepEqual(await world.looks(2), [0, 1]);
  });

  it('is left alone when this process has sent it', async () => {
    const world = new World();
    await world.started('charging');
    mock.timers.tick(SILENCE);
    assert.deepEqual(await world.looks(4), [0, 0, 0, 0]);
    assert.deepEqual(world.wire.resent, []);
  });

  it('is left alone when its attempt changed between two looks', async () => {
    const world = await unsent();
    mock.timers.tick(SILENCE);
    await world.looks(1);
    const checkpoint = await world.store.getCheckpoint('run-1', 0);
    assert.ok(checkpoint);
    await world.store.saveCheckpoint({ ...checkpoint, attempts: 2 });
    assert.deepEqual(await world.looks(2), [0, 1]);
    assert.equal(world.wire.resent[0]?.attempt, 2);
  });

  it('is tried again when it could not be sent', async () => {
    const world = await unsent();
    mock.timers.tick(SILENCE);
    world.wire.resend = () => Promise.reject(new Error('the broker is away'));
    assert.deepEqual(await world.looks(4), [0, 1, 0, 1]);
    assert.deepEqual(
      world.lines.of('run_not_pushed').map(({ fields }) => fields['reason']),
      ['the broker is away', 'the broker is away'],
    );
  });

  it('belongs to a run that is nobody’s while another operator holds its lease', async () => {
    const world = await unsent();
    await world.store.tryLockRun('run-1', 'another', Date.now() + MINUTE, Date.now());
    assert.deepEqual(await world.looks(5, 10 * SECOND), [0, 0, 0, 0, 0]);
    assert.deepEqual(await world.looks(3, 10 * SECOND), [0, 1, 0]);
  });

  it('is forgotten with a run that has not changed for a quarter of an hour', async () => {
    const world = await unsent();
    mock.timers.tick(15 * MINUTE);
    assert.deepEqual(await world.looks(3), [0, 0, 0]);
  });
});

describe('a run that lost its wake-up', () => {
  it('gets another turn when its decision was taken and not applied', async () => {
    const world = new World();
    const run = await world.started('elsewhere');
    assert.ok(run.awaitingDecisionTaskId);
    // The first write of the engine on a decision; the second never came.
    await world.store.updateRun('run-1', { awaitingDecisionTaskId: undefined, wakeAt: undefined, updatedAt: new Date() });
    assert.deepEqual(await world.looks(3), [0, 1, 0]);
    assert.equal(world.wire.turns.length, 2);
    assert.deepEqual(world.pushes, [['run run-1', 'resume']]);
  });

  it('is left alone while it awaits a decision', async () => {
    const world = new World();
    await world.started('elsewhere');
    assert.deepEqual(await world.looks(4, MINUTE), [0, 0, 0, 0]);
    assert.equal(world.wire.turns.length, 1);
  });

  it('goes on when a result was saved and the run was not', async () => {
    const world = new World();
    await world.started('charging and refunding');
    mock.timers.tick(SECOND);
    const checkpoint = await world.store.getCheckpoint('run-1', 0);
    assert.ok(checkpoint);
    await world.store.saveCheckpoint({ ...checkpoint, status: 'completed', output: 'paid', finishedAt: new Date() });
    assert.deepEqual(await world.looks(3), [0, 1, 0]);
    assert.deepEqual(world.wire.sent.map(({ name }) => name), ['charge', 'refund']);
  });

  it('is left alone when it moved between two looks', async () => {
    const world = new World();
    await world.started('elsewhere');
    await world.store.updateRun('run-1', { awaitingDecisionTaskId: undefined, wakeAt: undefined, updatedAt: new Date() });
    await world.looks(1);
    mock.timers.tick(SECOND);
    await world.store.updateRun('run-1', { updatedAt: new Date() });
    assert.deepEqual(await world.looks(1), [0]);
    assert.equal(world.wire.turns.length, 1);
  });
});

describe('a child', () => {
  const ended = async (outcome: Partial<WorkflowRun>) => {
    const world = new World();
    await world.started('parent');
    await world.until(async () => (await world.store.getRun('child-1'))?.status === 'suspended');
    // As the engine writes it before it tells the parent.
    await world.store.updateRun('child-1', { ...outcome, updatedAt: new Date() });
    const pushed = await world.looks(3);
    return { world, pushed };
  };

  it('that ended and could not say so hands its output to its parent', async () => {
    const { world, pushed } = await ended({ status: 'completed', output: { approved: true } });
    assert.deepEqual(pushed, [0, 1, 0]);
    const { status, output } = await world.run();
    assert.deepEqual({ status, output }, { status: 'completed', output: { approved: true } });
  });

  it('that failed fails its parent, with its message', async () => {
    const { world } = await ended({ status: 'failed', error: { message: 'declined' } });
    const { status, error } = await world.run();
    assert.equal(status, 'failed');
    assert.match(String(error?.message), /declined/);
  });

  it('that was cancelled fails its parent', async () => {
    const { world } = await ended({ status: 'cancelled' });
    assert.equal((await world.run()).status, 'failed');
  });

  it('that was never started is started', async () => {
    const world = new World();
    await world.started('parent');
    await world.until(async () => (await world.store.getRun('child-1'))?.status === 'suspended');
    await world.store.deleteRun('child-1');
    assert.deepEqual(await world.looks(3), [0, 1, 0]);
    await world.until(async () => (await world.store.getRun('child-1'))?.status === 'suspended');
    await world.engine.signal('approval', 'yes');
    await world.until(async () => (await world.run()).status === 'completed');
  });
});

describe('a run that waits for something that will come', () => {
  for (const workflow of [
    'sleeping',
    'waiting',
    'waiting for a while',
    'waiting for an event',
    'waiting for a webhook',
    'stopping at a breakpoint',
    'parent',
    'parent of many',
  ]) {
    it(`is never pushed: ${workflow}`, async () => {
      const world = new World();
      await world.started(workflow);
      await new Promise((resolve) => setImmediate(resolve));
      assert.deepEqual([...(await world.looks(30, 30 * SECOND))], Array.from({ length: 30 }, () => 0));
      assert.deepEqual(world.pushes, []);
    });
  }

  it('is never pushed: a worker’s body asleep beside a signal and a running step', async () => {
    const world = new World();
    const { awaitingDecisionTaskId } = await world.started('elsewhere');
    await world.wire.onDecisionHandler({
      taskId: String(awaitingDecisionTaskId),
      runId: 'run-1',
      status: 'continue',
      commands: [
        { kind: 'recordStep', seq: 0, name: 'now#0', output: 1, startedAt: Date.now(), finishedAt: Date.now() },
        { kind: 'call', seq: 1, name: 'charge', group: 'default', input: null },
        { kind: 'sleep', seq: 2, ms: 60 * MINUTE },
        { kind: 'waitSignal', seq: 3, signal: 'approval' },
      ],
    });
    assert.deepEqual(await world.looks(20, 30 * SECOND), Array.from({ length: 20 }, () => 0));
  });

  it('is never pushed: a failed step that waits for its next attempt', async () => {
    const world = new World();
    await world.started('charging again');
    mock.timers.tick(SECOND);
    await world.wire.onResultHandler({ runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'failed', error: { message: 'busy' } });
    assert.deepEqual(await world.looks(16, 30 * SECOND), Array.from({ length: 16 }, () => 0));
  });

  it('is never pushed: one of two parallel steps is done', async () => {
    const world = new World();
    world.engine.register('both', '1', (ctx: WorkflowCtx) => Promise.all([ctx.step('charge', 1), ctx.step('refund', 2)]));
    await world.started('both');
    mock.timers.tick(SECOND);
    await world.wire.onResultHandler({ runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed', output: 1 });
    mock.timers.tick(SILENCE);
    assert.deepEqual(await world.looks(4), [0, 0, 0, 0]);
  });
});

describe('recovery', () => {
  it('pushes ever more rarely what a push does not help', async () => {
    const world = new World();
    await world.started('elsewhere');
    // Two runs that wait for one signal: each takes the place of the other.
    await world.engine.start('waiting', null, 'run-2');
    await world.engine.start('waiting', null, 'run-3');
    await world.until(async () => (await world.run('run-3')).status === 'suspended');
    const pushed = await world.looks(60);
    assert.deepEqual(world.pushes.slice(0, 2), [
      ['run run-2', 'resume'],
      ['run run-3', 'resume'],
    ]);
    const total = pushed.reduce((sum, each) => sum + each, 0);
    assert.ok(total <= 12, `${total} pushes in five minutes`);
  });

  it('is for the runs of its namespace', async () => {
    const world = new World();
    world.wire.isDying = true;
    for (const namespace of ['acme', 'other']) {
      await world.engine.start('charging', null, `run of ${namespace}`, { namespace });
      await world.until(async () => (await world.run(`run of ${namespace}`)).status === 'suspended');
    }
    world.wire.isDying = false;
    const { engine, store, wire: transport, lines: logger } = world;
    const recovery = new RunRecovery({ engine, store, transport, silentForMs: 0, namespace: 'acme', logger });
    for (let look = 0; look < 3; look += 1) {
      mock.timers.tick(SILENCE);
      await recovery.look();
    }
    assert.deepEqual(world.wire.resent.map(({ runId }) => runId), ['run of acme']);
  });

  for (const [what, changes] of Object.entries<Partial<WorkflowRun>>({
    'was leased': { lockedBy: 'another', lockedUntil: 1_800_000_000_000 },
    'was put to sleep again': { updatedAt: new Date(1_700_000_900_000) },
    'got a turn': { awaitingDecisionTaskId: 'a turn' },
    'has ended': { status: 'completed' },
  })) {
    it(`leaves a run alone that ${what} since the list of runs was read`, async () => {
      const world = new World();
      await world.started('elsewhere');
      await world.store.updateRun('run-1', { awaitingDecisionTaskId: undefined, wakeAt: undefined });
      assert.deepEqual(await world.looks(1), [0]);
      const listCheckpoints = world.store.listCheckpoints.bind(world.store);
      world.store.listCheckpoints = async (runId) => {
        const checkpoints = await listCheckpoints(runId);
        await world.store.updateRun(runId, changes);
        return checkpoints;
      };
      assert.deepEqual(await world.looks(1), [0]);
      assert.equal(world.wire.turns.length, 1);
    });
  }

  it('looks at once, then again and again, until it is stopped', async () => {
    const world = await unsent();
    mock.timers.tick(SILENCE);
    const recovery = new RunRecovery({
      engine: world.engine, store: world.store, transport: world.wire, silentForMs: 0, everyMs: 1, logger: world.lines,
    });
    recovery.start();
    recovery.start();
    for (let turn = 0; turn < 500 && world.wire.resent.length === 0; turn += 1) {
      mock.timers.tick(1);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    recovery.stop();
    assert.equal(world.wire.resent.length, 1);
  });

  it('goes on after a look that failed', async () => {
    const world = await unsent();
    mock.timers.tick(SILENCE);
    const listRuns = world.store.listRuns.bind(world.store);
    let looks = 0;
    world.store.listRuns = (query) => (++looks === 1 ? Promise.reject(new Error('the database is away')) : listRuns(query));
    const recovery = new RunRecovery({
      engine: world.engine, store: world.store, transport: world.wire, silentForMs: 0, everyMs: 1, logger: world.lines,
    });
    recovery.start();
    for (let turn = 0; turn < 500 && world.wire.resent.length === 0; turn += 1) {
      mock.timers.tick(1);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    recovery.stop();
    assert.equal(world.wire.resent.length, 1);
    assert.deepEqual(world.lines.of('recovery_failed').map(({ fields }) => fields['reason']), ['the database is away']);
  });
});
