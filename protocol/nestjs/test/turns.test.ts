/** Signals that come while the engine applies a decision of the same run. */
import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import {
  InMemoryStateStore,
  WorkflowEngine,
  type HistoryEvent,
  type StepCheckpoint,
  type WorkflowDecision,
  type WorkflowRun,
  type WorkflowTask,
} from '@dudousxd/nestjs-durable-core';
import { eventually } from '../src/conformance/bench.js';
import { Turns } from '../src/turns.js';
import { Wire } from './world.js';

type Commands = WorkflowDecision['commands'];

/** Where the engine no longer awaits the decision, which is its first write. */
const THE_BEGINNING = 'the beginning';

/** Stops in a decision: at its beginning, or before it stores what was recorded under a name. */
class SlowStore extends InMemoryStateStore {
  stopsAt = '';
  isStopped = false;
  goOn: () => void = () => undefined;

  override async saveCheckpoint(checkpoint: StepCheckpoint): Promise<void> {
    await this.#pass(checkpoint.name);
    await super.saveCheckpoint(checkpoint);
  }

  override async updateRun(runId: string, patch: Partial<WorkflowRun>): Promise<void> {
    if ('awaitingDecisionTaskId' in patch && patch.awaitingDecisionTaskId === undefined) await this.#pass(THE_BEGINNING);
    await super.updateRun(runId, patch);
  }

  async #pass(place: string): Promise<void> {
    if (place !== this.stopsAt) return;
    this.isStopped = true;
    await new Promise<void>((resolve) => (this.goOn = resolve));
    this.isStopped = false;
  }
}

class TurningWire extends Wire {
  constructor(readonly through: Turns) {
    super();
  }

  override dispatchWorkflowTask(task: WorkflowTask): Promise<void> {
    return this.through.send(task, (it) => super.dispatchWorkflowTask(it));
  }
}

const wait = (seq: number, signal: string): Commands[number] => ({ kind: 'waitSignal', seq, signal });
const record = (seq: number, name: string, output: unknown): Commands[number] => ({
  kind: 'recordStep',
  seq,
  name,
  output,
  startedAt: 0,
  finishedAt: 0,
});

let store: SlowStore;
let wire: TurningWire;
let engine: WorkflowEngine;

beforeEach(async () => {
  store = new SlowStore();
  wire = new TurningWire(new Turns(store));
  engine = new WorkflowEngine({ store, transport: wire });
  engine.remote('elsewhere', { group: 'elsewhere' });
  await engine.start('elsewhere', null, 'run-1');
  await turn(1);
});

async function turn(count: number): Promise<WorkflowTask> {
  await eventually(`turn ${count}`, () => Promise.resolve(wire.turns.length >= count));
  const task = wire.turns[count - 1];
  assert.ok(task);
  return task;
}

/** Answers the latest turn. */
async function decide(commands: Commands, more: Partial<WorkflowDecision> = {}): Promise<void> {
  const taskId = wire.turns.at(-1)?.taskId ?? '';
  const decision: WorkflowDecision = { taskId, runId: 'run-1', status: 'continue', commands, ...more };
  await wire.through.apply(decision, wire.onDecisionHandler);
}

/** Answers the latest turn; `meanwhile` happens where the store stops. */
async function decideWhile(
  place: string,
  meanwhile: () => Promise<unknown>,
  commands: Commands,
  more?: Partial<WorkflowDecision>,
): Promise<void> {
  store.stopsAt = place;
  const deciding = decide(commands, more);
  await eventually('half of a decision', () => Promise.resolve(store.isStopped));
  const happening = meanwhile();
  await new Promise((resolve) => setTimeout(resolve, 20));
  store.stopsAt = '';
  store.goOn();
  await deciding;
  await happening;
}

const told = (history: HistoryEvent[]) => history.map(({ seq, name, output }) => [seq, name, output]);

describe('a signal in the middle of a decision', () => {
  it('sends a turn that knows all that the decision has recorded', async () => {
    await decide([wait(0, 'go'), wait(1, 'stop')]);
    await engine.signal('go', 'first');
    await turn(2);
    await decideWhile('marker', () => engine.signal('stop', 'now'), [
      wait(1, 'stop'),
      record(2, 'marker', [0]),
      { kind: 'recordStep', seq: 3, name: 'effect', error: { message: 'no' }, startedAt: 0, finishedAt: 0 },
      wait(4, 'go'),
    ]);
    const { history } = await turn(3);
    assert.deepEqual(told(history), [
      [0, undefined, 'first'],
      [1, undefined, 'now'],
      [2, 'marker', [0]],
      [3, 'effect', undefined],
    ]);
    assert.deepEqual(history[3]?.error, { message: 'no' });
  });

  it('sends a turn whose decision counts', async () => {
    await decide([wait(0, 'go'), wait(1, 'stop')]);
    await engine.signal('go', 1);
    await turn(2);
    await decideWhile(THE_BEGINNING, () => engine.signal('stop', 2), [wait(1, 'stop'), record(2, 'marker', [])]);
    await turn(3);
    await decide([], { status: 'completed', output: 'done' });
    assert.equal((await store.getRun('run-1'))?.output, 'done');
  });

  it('is not overwritten by the next of its name', async () => {
    await decide([wait(1, 'stop'), wait(2, 'go')]);
    await engine.signal('go', 0);
    await turn(2);
    await decideWhile('marker', () => engine.signal('stop', 'first'), [record(0, 'marker', []), wait(1, 'stop')]);
    await engine.signal('stop', 'second');
    assert.equal((await store.getCheckpoint('run-1', 1))?.output, 'first');
    assert.deepEqual(await store.takeBufferedSignal('stop'), { payload: 'second' });
  });

  it('sends no turn to a run that the decision has ended', async () => {
    await decide([wait(1, 'stop'), wait(2, 'go')]);
    await engine.signal('go', 0);
    await turn(2);
    await decideWhile('marker', () => engine.signal('stop', 'too late'), [record(0, 'marker', [])], { status: 'completed' });
    assert.equal(wire.turns.length, 2);
  });
});

describe('a wait that is repeated', () => {
  it('is asked for again if the decision that asked for it was dropped', async () => {
    await decide([wait(0, 'go')], { taskId: 'an older turn' });
    assert.deepEqual(await store.listSignalWaiters(''), []);
    await decide([wait(0, 'go')]);
    await engine.signal('go', 7);
    assert.deepEqual(told((await turn(2)).history), [[0, undefined, 7]]);
  });

  it('is not asked for again while its signal is on the way from the waiter to its checkpoint', async () => {
    await decide([wait(0, 'go'), wait(1, 'stop')]);
    await engine.signal('go', 0);
    await turn(2);
    // What the engine does first on a signal.
    assert.ok(await store.takeSignalWaiter('stop'));
    const deciding = decide([wait(1, 'stop')]);
    const signal = await store.getCheckpoint('run-1', 0);
    assert.ok(signal);
    await store.saveCheckpoint({ ...signal, seq: 1, stepId: 'run-1:1', name: 'signal:stop' });
    await deciding;
    assert.deepEqual(await store.listSignalWaiters(''), []);
  });

  it('is asked for again if another run has taken its place', async () => {
    await decide([wait(0, 'go'), wait(1, 'stop')]);
    await store.putSignalWaiter({ token: 'go', runId: 'run-2', seq: 0 });
    await engine.signal('stop', 0);
    await turn(2);
    await decide([wait(0, 'go')]);
    assert.deepEqual((await store.listSignalWaiters('')).map(({ runId }) => runId), ['run-1']);
  });
});
