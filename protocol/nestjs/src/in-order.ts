/** One input of a run at a time: the engine reads and writes a run in several steps. */
import { setTimeout as delay } from 'node:timers/promises';

/** How long after its dispatch the handler that dispatched a step may take to let go of the run. */
const LET_GO_WITHIN_MS = 100;

export class InOrder {
  readonly #tails = new Map<string, Promise<void>>();
  /** By run that is being handled: the steps that the engine dispatched meanwhile. */
  readonly #dispatched = new Map<string, Set<string>>();

  /** The engine has dispatched a step of this run, perhaps to wait for its result on the spot. */
  noteDispatch(runId: string, stepId: string): void {
    this.#dispatched.get(runId)?.add(stepId);
  }

  /**
   * Runs `work` after what came before it for the same run. With one exception: a step with a
   * timeout is awaited inside the handler of an earlier input, so its result must overtake that.
   */
  async run<T>(runId: string, work: () => Promise<T>, stepId?: string): Promise<T> {
    const before = this.#tails.get(runId);
    if (before !== undefined && stepId !== undefined && this.#dispatched.get(runId)?.has(stepId)) {
      const outcome = await Promise.race([before.then(() => 'ended'), delay(LET_GO_WITHIN_MS, 'held')]);
      if (outcome === 'held') return work();
    }
    return this.#inLine(runId, work);
  }

  async #inLine<T>(runId: string, work: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(runId) ?? Promise.resolve();
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const tail = before.then(() => ended);
    this.#tails.set(runId, tail);
    await before;
    this.#dispatched.set(runId, new Set());
    try {
      return await work();
    } finally {
      this.#dispatched.delete(runId);
      end();
      if (this.#tails.get(runId) === tail) this.#tails.delete(runId);
    }
  }
}
