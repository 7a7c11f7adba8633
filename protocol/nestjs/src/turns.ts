/**
 * Keeps a decision that is being applied and a signal that comes meanwhile apart.
 *
 * The engine applies a decision command by command. A signal, and a child that ends is one, goes
 * on with the run at once, in the middle of that:
 *
 * - it sends a turn whose history holds a part of the decision. What that turn records would
 *   overwrite what the rest of the decision records;
 * - the decision may repeat the wait that the signal has just ended. The next signal of that name
 *   would then overwrite this one.
 *
 * So a turn that is sent meanwhile waits and gets what was recorded, and a wait that the engine
 * knows already is not repeated. Both need to look into the engine's store.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { HistoryEvent, RunStatus, StateStore, WorkflowDecision, WorkflowTask } from '@dudousxd/nestjs-durable-core';

/** What of a `StateStore` is used. */
export type TurnStore = Pick<StateStore, 'getRun' | 'updateRun' | 'getCheckpoint' | 'listCheckpoints' | 'listSignalWaiters'>;

type Command = WorkflowDecision['commands'][number];
type Wait = Extract<Command, { kind: 'waitSignal' }>;

/** No turn waits longer for a decision. */
const AT_MOST_MS = 5_000;
/** How long the engine may take from the removal of a waiter to the checkpoint of its signal. */
const DELIVERING_MS = 50;
const LOOK_EVERY_MS = 5;
const REMEMBERED = 20_000;
const TERMINAL = new Set<RunStatus>(['completed', 'failed', 'cancelled', 'dead']);

export class Turns {
  readonly #store: TurnStore | undefined;
  readonly #applying = new Map<string, Promise<void>>();
  /** Waits that were handed to the engine before. */
  readonly #waits = new Set<string>();

  constructor(store: TurnStore | undefined) {
    this.#store = store;
  }

  /** Has the engine apply a decision by `handle`. */
  async apply(decision: WorkflowDecision, handle: (decision: WorkflowDecision) => Promise<void>): Promise<void> {
    if (this.#store === undefined) return handle(decision);
    const { runId } = decision;
    const commands: Command[] = [];
    for (const command of decision.commands) {
      if (command.kind !== 'waitSignal' || !(await this.#isKnown(this.#store, runId, command))) commands.push(command);
    }
    let end: () => void = () => undefined;
    this.#applying.set(runId, new Promise((resolve) => (end = resolve)));
    try {
      await handle({ ...decision, commands });
    } finally {
      this.#applying.delete(runId);
      end();
    }
  }

  /** Sends a turn by `send`, once no decision of its run is being applied any more. */
  async send(task: WorkflowTask, send: (task: WorkflowTask) => Promise<void>): Promise<void> {
    const applying = this.#applying.get(task.runId);
    if (this.#store === undefined || applying === undefined) return send(task);
    await Promise.race([applying, delay(AT_MOST_MS, undefined, { ref: false })]);
    const run = await this.#store.getRun(task.runId);
    if (run !== null && TERMINAL.has(run.status)) return;
    if (run?.status === 'suspended' && run.awaitingDecisionTaskId == null) {
      // The decision took back the mark of this turn together with that of its own.
      await this.#store.updateRun(task.runId, { awaitingDecisionTaskId: task.taskId });
    }
    await send({ ...task, history: await this.#withRecords(this.#store, task) });
  }

  async #withRecords(store: TurnStore, { runId, history }: WorkflowTask): Promise<HistoryEvent[]> {
    const told = new Set(history.map(({ seq }) => seq));
    const records = (await store.listCheckpoints(runId))
      .filter(({ seq, kind, status }) => kind === 'local' && (status === 'completed' || status === 'failed') && !told.has(seq))
      .map(({ seq, name, status, output, error }): HistoryEvent => {
        const outcome = status === 'failed' ? { error } : { output };
        return { seq, kind: 'step', name, ...outcome };
      });
    return [...history, ...records].sort((a, b) => a.seq - b.seq);
  }

  /** Whether the engine waits for this signal, or has got it. */
  async #isKnown(store: TurnStore, runId: string, { seq, signal }: Wait): Promise<boolean> {
    const key = `${runId}:${seq}`;
    const isRepeated = this.#waits.has(key);
    this.#remember(key);
    const giveUpAt = Date.now() + (isRepeated ? DELIVERING_MS : 0);
    for (;;) {
      const waiters = await store.listSignalWaiters(signal);
      if (waiters.some((each) => each.token === signal && each.runId === runId && each.seq === seq)) return true;
      if ((await store.getCheckpoint(runId, seq))?.status === 'completed') return true;
      if (Date.now() >= giveUpAt) return false;
      await delay(LOOK_EVERY_MS);
    }
  }

  #remember(key: string): void {
    this.#waits.delete(key); // so that the oldest stays first
    this.#waits.add(key);
    if (this.#waits.size > REMEMBERED) {
      const [oldest] = this.#waits;
      if (oldest !== undefined) this.#waits.delete(oldest);
    }
  }
}
