/**
 * Runs that an operator left behind when it was killed between two writes.
 *
 * The engine writes a checkpoint and then sends the task, clears the marker of a turn and then
 * applies it, ends a child and then tells the parent. Killed in between, the run would wait for
 * something that never comes. This looks for such runs through the store's public interface and
 * gives the engine a push: `resume`, `signal`, or the lost task once more.
 */
import type { Heartbeat, RemoteTask, RunStatus, StateStore, StepCheckpoint, WorkflowRun } from '@dudousxd/nestjs-durable-core';
import { stderrLogger, textOf, type Logger } from './logger.js';
import { baseOf, routingToken } from './names.js';

/** What recovery needs of the engine. */
export interface RecoveringEngine {
  resume(runId: string): Promise<unknown>;
  signal(token: string, payload: unknown): Promise<unknown>;
}

/** What recovery needs of the transport. */
export interface RecoveringTransport {
  hasDispatched(stepId: string, attempt: number): boolean;
  resend(task: RemoteTask): Promise<void>;
  onHeartbeat(handler: (beat: Heartbeat) => Promise<void>): void;
  groupHealth(group: string): Promise<{ depth: number }>;
  /** Whether no result waits to be consumed. */
  isDrained(): Promise<boolean>;
  ready(): Promise<void>;
}

export interface RunRecoveryOptions {
  engine: RecoveringEngine;
  store: StateStore;
  transport: RecoveringTransport;
  /** Between two looks. A run is pushed when two looks in a row find it unchanged. Default 5 s. */
  everyMs?: number;
  /**
   * How long a task must have been silent (no heartbeat, no result, none waiting in a queue)
   * before it counts as never sent. Workers beat every 5 s from the moment they hold a task.
   * Default 15 s.
   */
  silentForMs?: number;
  /**
   * Only runs that changed within this time are looked at, but for the first looks after a start:
   * the operator may have been away for long. Default 15 minutes.
   */
  lookBackMs?: number;
  /** Only runs of this namespace: that of `DurableModule`, if it has one. Default: all. */
  namespace?: string;
  logger?: Logger;
}

type Push = { kind: 'resume' } | { kind: 'tell-parent'; completion: object } | { kind: 'resend'; checkpoint: StepCheckpoint };

const PAGE = 500;
const TERMINAL = new Set<RunStatus>(['completed', 'failed', 'cancelled', 'dead']);
const LONGEST_PAUSE_MS = 5 * 60_000;
const CHILD = 'child:';

export class RunRecovery {
  readonly #engine: RecoveringEngine;
  readonly #store: StateStore;
  readonly #transport: RecoveringTransport;
  readonly #everyMs: number;
  readonly #silentForMs: number;
  readonly #lookBackMs: number;
  readonly #namespace: string | undefined;
  readonly #logger: Logger;
  readonly #heardOf = new Map<string, number>();
  readonly #pushes = new Map<string, { at: number; times: number }>();
  #suspects = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #isListening = false;
  #isDrained = false;
  #listeningSince = 0;

  constructor(options: RunRecoveryOptions) {
    this.#engine = options.engine;
    this.#store = options.store;
    this.#transport = options.transport;
    this.#everyMs = options.everyMs ?? 5_000;
    this.#silentForMs = options.silentForMs ?? 15_000;
    this.#lookBackMs = options.lookBackMs ?? 15 * 60_000;
    this.#namespace = options.namespace;
    this.#logger = options.logger ?? stderrLogger();
  }

  /** Looks now and from then on. Call it once the transport has been started. */
  start(): void {
    if (this.#timer !== undefined) return;
    if (!this.#isListening) {
      this.#isListening = true;
      this.#listeningSince = Date.now();
      this.#transport.onHeartbeat(async (beat) => {
        if (beat.stepId !== undefined) this.#heardOf.set(beat.stepId, Date.now());
      });
    }
    this.#schedule(0);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #schedule(ms: number): void {
    this.#timer = setTimeout(() => {
      void this.look()
        .catch((error: unknown) => this.#logger.warn('recovery_failed', { reason: textOf(error), next: 'trying again' }))
        .finally(() => {
          if (this.#timer !== undefined) this.#schedule(this.#everyMs);
        });
    }, ms);
    this.#timer.unref();
  }

  /** One look at all recent runs; returns how many were pushed. */
  async look(): Promise<number> {
    await this.#transport.ready();
    const now = Date.now();
    this.#isDrained = await this.#transport.isDrained();
    const seen = new Map<string, string>();
    let pushed = 0;
    const waiters = new Map((await this.#store.listSignalWaiters('')).map((each) => [`${each.runId}:${each.seq}`, each.token]));
    for await (const run of this.#recent(now)) {
      const checkpoints = await this.#store.listCheckpoints(run.id);
      const tokens = [...waiters].filter(([key]) => key.slice(0, key.lastIndexOf(':')) === run.id).map(([, token]) => token);
      for (const [subject, evidence, push] of await this.#lost(run, checkpoints, tokens, now)) {
        seen.set(subject, evidence);
        if (this.#suspects.get(subject) !== evidence || !this.#mayPush(subject, now)) continue;
        seen.delete(subject);
        if (!(await this.#isAsSeen(run))) continue;
        pushed += 1;
        await this.#push(run, subject, push);
      }
    }
    this.#suspects = seen;
    for (const [subject, { at }] of this.#pushes) if (now - at > this.#lookBackMs) this.#pushes.delete(subject);
    for (const [stepId, at] of this.#heardOf) if (now - at > this.#lookBackMs) this.#heardOf.delete(stepId);
    return pushed;
  }

  /** What a push did not help, as with a step that a rate limit holds back, is pushed ever more rarely. */
  #mayPush(subject: string, now: number): boolean {
    const { at, times } = this.#pushes.get(subject) ?? { at: -Infinity, times: 0 };
    if (now - at < Math.min(this.#everyMs * 2 ** times, LONGEST_PAUSE_MS)) return false;
    this.#pushes.set(subject, { at: now, times: times + 1 });
    return true;
  }

  /** Whether nobody has taken the run up since the list of runs was read. */
  async #isAsSeen(seen: WorkflowRun): Promise<boolean> {
    const run = await this.#store.getRun(seen.id);
    return (
      run !== null &&
      run.status === seen.status &&
      run.updatedAt.getTime() === seen.updatedAt.getTime() &&
      (run.lockedUntil ?? 0) <= Date.now() &&
      run.awaitingDecisionTaskId == seen.awaitingDecisionTaskId
    );
  }

  async *#recent(now: number): AsyncGenerator<WorkflowRun> {
    const isBeginning = now - this.#listeningSince < this.#silentForMs + 3 * this.#everyMs;
    for (let offset = 0; ; offset += PAGE) {
      const page = await this.#store.listRuns({ statuses: ['suspended', 'running'], namespace: this.#namespace, limit: PAGE, offset });
      for (const run of page) {
        const isLeased = (run.lockedUntil ?? 0) > now;
        const isRecent = now - run.updatedAt.getTime() < this.#lookBackMs;
        if (!isLeased && (isRecent || isBeginning)) yield run;
      }
      if (page.length < PAGE) return;
    }
  }

  /** What was lost of a run: subject, evidence that must not change until the next look, remedy. */
  async #lost(
    run: WorkflowRun,
    checkpoints: StepCheckpoint[],
    tokens: string[],
    now: number,
  ): Promise<[string, string, Push][]> {
    const lost: [string, string, Push][] = [];
    for (const checkpoint of checkpoints) {
      if (await this.#isNeverSent(checkpoint, now)) {
        const { stepId, attempts } = checkpoint;
        lost.push([`step ${stepId}`, String(attempts), { kind: 'resend', checkpoint }]);
      }
    }
    for (const token of tokens.filter((each) => each.startsWith(CHILD))) {
      const push = await this.#lostChild(run, token.slice(CHILD.length));
      if (push !== undefined) lost.push([`child ${run.id} ${token}`, push.kind, push]);
    }
    if (run.status === 'suspended' && run.awaitingDecisionTaskId == null && hasLostItsWake(run, checkpoints, tokens, now)) {
      lost.push([`run ${run.id}`, String(run.updatedAt.getTime()), { kind: 'resume' }]);
    }
    return lost;
  }

  async #isNeverSent(checkpoint: StepCheckpoint, now: number): Promise<boolean> {
    const { kind, status, stepId, attempts, workerGroup } = checkpoint;
    if (kind !== 'remote' || status !== 'pending' || workerGroup === undefined) return false;
    if (!this.#isDrained || this.#transport.hasDispatched(stepId, attempts)) return false;
    const lastSign = Math.max(checkpoint.enqueuedAt.getTime(), this.#listeningSince, this.#heardOf.get(stepId) ?? 0);
    if (now - lastSign < this.#silentForMs) return false;
    return (await this.#transport.groupHealth(workerGroup)).depth === 0;
  }

  async #lostChild(run: WorkflowRun, childId: string): Promise<Push | undefined> {
    const child = await this.#store.getRun(childId);
    if (child === null) return run.awaitingDecisionTaskId == null ? { kind: 'resume' } : undefined;
    if (!TERMINAL.has(child.status)) return undefined;
    const completion =
      child.status === 'completed'
        ? { ok: true, value: child.output }
        : { ok: false, error: child.error?.message ?? `child run ${childId} was ${child.status}` };
    return { kind: 'tell-parent', completion };
  }

  async #push(run: WorkflowRun, subject: string, push: Push): Promise<void> {
    this.#logger.info('run_pushed', { runId: run.id, subject, remedy: push.kind });
    try {
      if (push.kind === 'resume') await this.#engine.resume(run.id);
      else if (push.kind === 'tell-parent') {
        await this.#engine.signal(subject.slice(subject.indexOf(` ${CHILD}`) + 1), push.completion);
      } else await this.#transport.resend(taskOf(push.checkpoint));
    } catch (error) {
      this.#logger.warn('run_not_pushed', { runId: run.id, subject, reason: textOf(error), next: 'trying again' });
    }
  }
}

/**
 * The wake-up of a suspended run is lost if nothing is outstanding, if a checkpoint was resolved
 * after the run was last put to sleep, or if it was never put to sleep properly: the engine gives
 * every sleeping run a time to wake.
 */
function hasLostItsWake(run: WorkflowRun, checkpoints: StepCheckpoint[], tokens: string[], now: number): boolean {
  if (run.wakeAt == null) return true;
  if (run.wakeAt <= now) return false;
  const asleepSince = run.updatedAt.getTime();
  const isOutstanding = checkpoints.some(
    ({ kind, status, wakeAt }) =>
      (kind === 'remote' && status === 'pending') ||
      // The sleep of a body in TypeScript counts as completed from the start; its time tells.
      (kind === 'sleep' && (wakeAt ?? 0) > now) ||
      (kind === 'remote' && status === 'failed' && wakeAt != null),
  );
  if (!isOutstanding && tokens.length === 0) return true;
  return checkpoints.some(
    ({ status, finishedAt }) => (status === 'completed' || status === 'failed') && finishedAt.getTime() > asleepSince,
  );
}

function taskOf(checkpoint: StepCheckpoint): RemoteTask {
  const group = checkpoint.workerGroup ?? routingToken(checkpoint.name);
  // A compensation's checkpoint is named after the step that it undoes; its group is its own.
  const isUndo = checkpoint.name.startsWith('compensate:');
  return {
    runId: checkpoint.runId,
    seq: checkpoint.seq,
    name: isUndo ? baseOf(group) : checkpoint.name,
    stepId: checkpoint.stepId,
    group,
    input: checkpoint.input,
    attempt: checkpoint.attempts,
  };
}
