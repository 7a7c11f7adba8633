/** An operator on a wire that only takes notes, in a time that the test moves. */
import assert from 'node:assert/strict';
import { mock } from 'node:test';
import {
  InMemoryStateStore,
  WorkflowEngine,
  type Heartbeat,
  type RemoteTask,
  type StepResult,
  type Transport,
  type WorkflowCtx,
  type WorkflowDecision,
  type WorkflowRun,
  type WorkflowTask,
} from '@dudousxd/nestjs-durable-core';
import { RunRecovery } from '../src/index.js';
import { Lines } from './rabbitmq.js';

export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const SILENCE = 15 * SECOND;

/** Notes what the engine sends. `isDying`: the process is killed before it sends anything. */
export class Wire implements Transport {
  readonly sent: RemoteTask[] = [];
  readonly resent: RemoteTask[] = [];
  readonly turns: WorkflowTask[] = [];
  readonly depths = new Map<string, number>();
  isDying = false;
  onResultHandler: (result: StepResult) => Promise<void> = () => Promise.resolve();
  onDecisionHandler: (decision: WorkflowDecision) => Promise<void> = () => Promise.resolve();
  readonly #dispatched = new Set<string>();
  readonly #beats: ((beat: Heartbeat) => Promise<void>)[] = [];

  async dispatch(task: RemoteTask): Promise<void> {
    if (this.isDying) return;
    this.sent.push(task);
    this.#dispatched.add(`${task.stepId}:${task.attempt}`);
  }

  async resend(task: RemoteTask): Promise<void> {
    this.resent.push(task);
    this.#dispatched.add(`${task.stepId}:${task.attempt}`);
  }

  async dispatchWorkflowTask(task: WorkflowTask): Promise<void> {
    this.turns.push(task);
  }

  hasDispatched(stepId: string, attempt: number): boolean {
    return this.#dispatched.has(`${stepId}:${attempt}`);
  }

  onResult(handler: (result: StepResult) => Promise<void>): void {
    this.onResultHandler = handler;
  }

  onDecision(handler: (decision: WorkflowDecision) => Promise<void>): void {
    this.onDecisionHandler = handler;
  }

  onHeartbeat(handler: (beat: Heartbeat) => Promise<void>): void {
    this.#beats.push(handler);
  }

  async beat(stepId: string): Promise<void> {
    for (const handler of this.#beats) await handler({ runId: '', seq: 0, stepId, group: 'charge' });
  }

  async groupHealth(group: string): Promise<{ group: string; depth: number; liveWorkers: [] }> {
    return { group, depth: this.depths.get(group) ?? 0, liveWorkers: [] };
  }

  isBacklogged = false;

  async isDrained(): Promise<boolean> {
    return !this.isBacklogged;
  }

  async ready(): Promise<void> {}
}

export class World {
  readonly store = new InMemoryStateStore();
  readonly wire = new Wire();
  readonly engine = new WorkflowEngine({ store: this.store, transport: this.wire });
  readonly lines = new Lines();
  readonly recovery = new RunRecovery({
    engine: this.engine,
    store: this.store,
    transport: this.wire,
    silentForMs: SILENCE,
    logger: this.lines,
  });

  constructor() {
    const bodies: Record<string, (ctx: WorkflowCtx, input: unknown) => Promise<unknown>> = {
      charging: (ctx) => ctx.step('charge', { cents: 1 }),
      'charging and refunding': async (ctx) => [await ctx.step('charge', 1), await ctx.step('refund', 2)],
      'charging again': (ctx) => ctx.step('charge', 1, { retries: 3, backoffMs: 10 * MINUTE }),
      sleeping: (ctx) => ctx.sleep(60 * MINUTE),
      waiting: (ctx) => ctx.waitForSignal('approval'),
      'waiting for a while': (ctx) => ctx.waitForSignal('approval', { timeoutMs: 60 * MINUTE }),
      'waiting for an event': (ctx) => ctx.waitForEvent('paid', { match: { order: 1 } }),
      'waiting for a webhook': (ctx) => ctx.webhook().wait(),
      'stopping at a breakpoint': (ctx) => ctx.breakpoint('here'),
      parent: (ctx) => ctx.child('waiting', null, 'child-1'),
      'waiting alone': (ctx, input) => ctx.waitForSignal(`approval of ${String(input)}`),
      'parent of many': (ctx) => ctx.all('waiting alone', [1, 2]),
    };
    for (const [name, body] of Object.entries(bodies)) this.engine.register(name, '1', body);
    this.engine.remote('elsewhere', { group: 'elsewhere' });
  }

  async started(workflow: string, runId = 'run-1'): Promise<WorkflowRun> {
    await this.engine.start(workflow, null, runId);
    await this.until(async () => (await this.run(runId)).status === 'suspended');
    return this.run(runId);
  }

  async run(runId = 'run-1'): Promise<WorkflowRun> {
    const run = await this.store.getRun(runId);
    assert.ok(run);
    return run;
  }

  async until(look: () => Promise<boolean>): Promise<void> {
    for (let turn = 0; turn < 2_000; turn += 1) {
      if (await look()) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.fail('it never came to that');
  }

  /** The work of `looks` looks, so many milliseconds apart. */
  async looks(count: number, apart = 5 * SECOND): Promise<number[]> {
    const pushed: number[] = [];
    for (let look = 0; look < count; look += 1) {
      mock.timers.tick(apart);
      pushed.push(await this.recovery.look());
      await new Promise((resolve) => setImmediate(resolve));
    }
    return pushed;
  }

  get pushes(): unknown[] {
    return this.lines.of('run_pushed').map(({ fields }) => [fields['subject'], fields['remedy']]);
  }
}
