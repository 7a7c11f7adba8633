/**
 * Holds a result back until the execution that dispatched its step has let go of the run.
 *
 * The engine dispatches a step, then writes that the run waits. A fast worker's result can come
 * first; it would go on with the run, end it, and then be overwritten by that write. What the
 * engine does is seen by its events: `step.started` follows the dispatch of a step whose result
 * is awaited by the store, and an event of the run follows the write. A step without
 * `step.started` after its dispatch is awaited in memory, by somebody who is ready for it. Of
 * steps side by side the first ends the execution: its event can come before another's dispatch.
 */
import type { ControlMessage, StepResult } from '@dudousxd/nestjs-durable-core';
import type { Stored } from './consumer.js';

/** No result waits longer, whatever the engine tells or does not tell. */
const AT_MOST_MS = 5_000;
/** How long the write may take, so that the last of steps side by side does not wait for long. */
const WRITE_MS = 500;
/** Between the event of the run and the release of its lease lies one write. */
const RELEASE_MS = 10;

const ENDS_AN_EXECUTION = new Set<string>(['run.suspended', 'run.completed', 'run.failed', 'run.blocked']);

interface Dispatched {
  seq: number;
  isConfirmed: boolean;
  hasStarted: boolean;
  hasMovedOn: boolean;
  letGo: () => void;
  done: Promise<void>;
}

export class Settling {
  readonly #storing = new Map<string, () => void>();
  readonly #byRun = new Map<string, Set<Dispatched>>();

  /** Sends a step by `send`, and remembers it until the engine has let go of its run. */
  async during(runId: string, seq: number, send: () => Promise<void>): Promise<void> {
    const dispatched = this.#remember(runId, seq);
    try {
      await send();
    } catch (error) {
      dispatched.letGo();
      throw error;
    }
    dispatched.isConfirmed = true;
    setImmediate(() => {
      if (!dispatched.hasStarted || dispatched.hasMovedOn) dispatched.letGo();
      else setTimeout(dispatched.letGo, WRITE_MS).unref();
    });
  }

  /** What the engine tells when it has stored the result of a step. */
  stored({ runId, seq }: StepResult): Stored {
    const key = `${runId}:${seq}`;
    let resolve: () => void = () => undefined;
    const done = new Promise<void>((resolved) => (resolve = resolved));
    this.#storing.set(key, resolve);
    return { done, forget: () => void (this.#storing.get(key) === resolve && this.#storing.delete(key)) };
  }

  /** Everything that the engine tells passes here. */
  observe(message: ControlMessage): void {
    if (message.kind !== 'event') return;
    const { runId, seq, type } = message.event;
    if (type === 'step.completed' || type === 'step.failed') this.#storing.get(`${runId}:${seq}`)?.();
    for (const dispatched of this.#byRun.get(runId) ?? []) {
      if (type === 'step.started' && seq === dispatched.seq) dispatched.hasStarted = true;
      else if (ENDS_AN_EXECUTION.has(type)) {
        dispatched.hasMovedOn = true;
        if (dispatched.isConfirmed) setTimeout(dispatched.letGo, RELEASE_MS).unref();
      }
    }
  }

  /** Resolves when no execution of the run is between a dispatch and its end. */
  async settled(runId: string): Promise<void> {
    await Promise.all([...(this.#byRun.get(runId) ?? [])].map(({ done }) => done));
  }

  #remember(runId: string, seq: number): Dispatched {
    const all = this.#byRun.get(runId) ?? new Set<Dispatched>();
    this.#byRun.set(runId, all);
    let resolve: () => void = () => undefined;
    const done = new Promise<void>((resolved) => (resolve = resolved));
    const timer = setTimeout(() => dispatched.letGo(), AT_MOST_MS).unref();
    const letGo = () => {
      clearTimeout(timer);
      all.delete(dispatched);
      if (all.size === 0 && this.#byRun.get(runId) === all) this.#byRun.delete(runId);
      resolve();
    };
    const dispatched: Dispatched = { seq, isConfirmed: false, hasStarted: false, hasMovedOn: false, letGo, done };
    all.add(dispatched);
    return dispatched;
  }
}
