/** Steps that this process serves: `handle`, and every `@Step` of the application. */
import { setTimeout as delay } from 'node:timers/promises';
import {
  runStepHandler,
  type RemoteTask,
  type RunDetail,
  type StepHandler,
  type StepResult,
  type WorkerStatus,
} from '@dudousxd/nestjs-durable-core';
import type { Delivery, WorkConsumers } from './consumer.js';
import { UnsendableError } from './errors.js';
import type { Logger } from './logger.js';
import { routingToken, type Names } from './names.js';
import { rssBytes, type Served } from './presence.js';
import type { Publisher } from './publisher.js';
import type { Requests } from './requests.js';
import { RESENT_HEADER } from './wire.js';

const HEARTBEAT_EVERY_MS = 5_000;
const REMEMBERED_RESULTS = 1_000;
const ANSWER_WITHIN_MS = 15_000;
const SECOND_LOOK_AFTER_MS = 500;
const TERMINAL = new Set(['completed', 'failed', 'cancelled', 'dead']);
const OPEN = new Set(['pending', 'running']);

export interface StepsDependencies {
  names: Names;
  publisher: Publisher;
  consumers: WorkConsumers;
  requests: Requests;
  logger: Logger;
  concurrency: number;
  tenant: string;
}

export class Steps implements Served {
  readonly #deps: StepsDependencies;
  readonly #handlers = new Map<string, { name: string; handler: StepHandler }>();
  readonly #running = new Map<string, Promise<StepResult>>();
  readonly #finished = new Map<string, StepResult>();
  readonly #slots: Slots;

  constructor(deps: StepsDependencies) {
    this.#deps = deps;
    this.#slots = new Slots(deps.concurrency);
  }

  /** True if the name was not served before; else its handler has been replaced. */
  register(name: string, handler: StepHandler, partition: string | undefined): boolean {
    const token = routingToken(name, partition);
    const isNew = !this.#handlers.has(token);
    this.#handlers.set(token, { name, handler });
    return isNew;
  }

  steps(): string[] {
    return [...new Set([...this.#handlers.values()].map(({ name }) => name))];
  }

  groups(): string[] {
    return [...this.#handlers.keys()];
  }

  status(): WorkerStatus {
    return {
      runtime: 'node',
      concurrency: { mode: 'fixed', limit: this.#deps.concurrency },
      inFlight: this.#running.size,
      rssBytes: rssBytes(),
    };
  }

  async consume(token: string): Promise<void> {
    await this.#deps.consumers.subscribe<RemoteTask>({
      queue: this.#deps.names.tasks(token),
      types: ['step-task'],
      prefetch: this.#deps.concurrency,
      handle: (delivery) => this.#take(token, delivery),
    });
  }

  async #take(token: string, delivery: Delivery<RemoteTask>): Promise<void> {
    const task = delivery.value;
    const key = `${task.stepId}:${task.attempt}`;
    const mayRepeat = delivery.isRepeated || RESENT_HEADER in delivery.headers;
    const running = this.#running.get(key);
    if (running !== undefined) return this.#answer(task, await running);
    const finished = this.#finished.get(key);
    // A failed attempt that is sent as new is run anew: so the engine tries a failed run again.
    if (finished !== undefined && (finished.status === 'completed' || mayRepeat)) return this.#answer(task, finished);
    if (mayRepeat && (await this.#isRecorded(task))) {
      this.#deps.logger.info('repeated_step_skipped', { runId: task.runId, step: task.name });
      return undefined;
    }
    const started = this.#alive(task, () => this.#slots.use(() => runStepHandler(task, this.#handlers.get(token)?.handler)));
    this.#running.set(key, started);
    try {
      const result = await started;
      this.#remember(key, result);
      await this.#answer(task, result);
    } finally {
      this.#running.delete(key);
    }
    return undefined;
  }

  async #answer(task: RemoteTask, result: StepResult): Promise<void> {
    const { names, publisher } = this.#deps;
    const messageId = `${task.stepId}:${task.attempt}`;
    try {
      await publisher.send(names.results, { type: 'step-result', value: result, messageId });
    } catch (error) {
      if (!(error instanceof UnsendableError)) throw error;
      const failed = { ...unsent(task), error: { message: error.message, code: error.code, retryable: false } };
      await publisher.send(names.results, { type: 'step-result', value: failed, messageId });
    }
  }

  /** Keeps the step alive for operators from the moment it is held here. */
  async #alive<T>(task: RemoteTask, work: () => Promise<T>): Promise<T> {
    const { names, publisher } = this.#deps;
    const beat = () =>
      void publisher.broadcast(names.heartbeat, {
        type: 'heartbeat',
        value: { runId: task.runId, seq: task.seq, stepId: task.stepId, group: task.group },
      });
    beat();
    const timer = setInterval(beat, HEARTBEAT_EVERY_MS);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }

  #remember(key: string, result: StepResult): void {
    this.#finished.set(key, result);
    if (this.#finished.size > REMEMBERED_RESULTS) {
      const [oldest] = this.#finished.keys();
      if (oldest !== undefined) this.#finished.delete(oldest);
    }
  }

  /** Whether the operator waits for no result of this attempt: protocol/README.md, "Delivery", 2. */
  async #isRecorded(task: RemoteTask): Promise<boolean> {
    for (let look = 0; look < 2; look += 1) {
      if (look > 0) await delay(SECOND_LOOK_AFTER_MS);
      const body = { kind: 'getRunDetail', runId: task.runId } as const;
      const reply = await this.#deps.requests.ask(this.#deps.tenant, body, ANSWER_WITHIN_MS);
      if (reply === undefined || !reply.result.ok) return false;
      const detail = reply.result.data as RunDetail | null;
      if (detail !== null && isSettled(detail, task)) return true;
    }
    return false;
  }
}

function isSettled(detail: RunDetail, task: RemoteTask): boolean {
  if (TERMINAL.has(detail.run.status)) return true;
  const entries = detail.timeline.filter((entry) => entry.seq === task.seq);
  return entries.some((entry) => !OPEN.has(entry.status) || entry.attempts > task.attempt);
}

/** What the operator is told of a task that could not be answered as it should. */
export function unsent(task: { runId: string; seq: number; stepId: string }): StepResult {
  return { runId: task.runId, seq: task.seq, stepId: task.stepId, status: 'failed' };
}

/** So many at once, the others in the order in which they came. */
class Slots {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#free = count;
  }

  async use<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
