/** Tasks on their way to workers, and which of them have been sent. */
import type { RemoteTask, StepResult, WorkflowDecision, WorkflowTask } from '@dudousxd/nestjs-durable-core';
import type { WorkConsumers } from './consumer.js';
import { UnsendableError } from './errors.js';
import type { Logger } from './logger.js';
import type { Names } from './names.js';
import type { Presence } from './presence.js';
import type { Publisher } from './publisher.js';
import type { Settling } from './settling.js';
import { unsent } from './steps.js';
import type { Outgoing } from './wire.js';

const REMEMBERED = 100_000;
/** By then the engine has noted that it waits for a task that could not be sent. */
const NOTED_AFTER_MS = 50;

type Failure = { message: string; code: string; retryable: false };

export interface DispatcherDependencies {
  names: Names;
  publisher: Publisher;
  presence: Presence;
  consumers: WorkConsumers;
  settling: Settling;
  logger: Logger;
  /** Takes the result of a step that cannot be sent. */
  onResult(result: StepResult): Promise<void> | undefined;
  /** Takes the decision of a turn that cannot be sent. */
  onDecision(decision: WorkflowDecision): Promise<void> | undefined;
}

export class Dispatcher {
  readonly #deps: DispatcherDependencies;
  /** By step: the attempt that was sent last. */
  readonly #last = new Map<string, number>();

  constructor(deps: DispatcherDependencies) {
    this.#deps = deps;
  }

  has(stepId: string, attempt: number): boolean {
    return this.#last.get(stepId) === attempt;
  }

  /**
   * Whether it is the failure of another attempt than was sent last, which the engine would take
   * for this one's. A step that an earlier attempt completed is done.
   */
  isOutdated({ stepId, status }: StepResult, attempt: number | undefined): boolean {
    const last = this.#last.get(stepId);
    return status === 'failed' && attempt !== undefined && last !== undefined && last !== attempt;
  }

  async step(task: RemoteTask, headers: Record<string, string>): Promise<void> {
    const { runId, seq, stepId, attempt, group } = task;
    const { consumers, settling, onResult } = this.#deps;
    const message: Outgoing = { type: 'step-task', value: task, messageId: `${stepId}:${attempt}`, headers };
    consumers.noteDispatch(runId, stepId);
    this.#remember(stepId, attempt);
    await settling.during(runId, seq, () =>
      this.#send(group, message, (error) => onResult({ ...unsent(task), error })),
    );
  }

  async turn(task: WorkflowTask): Promise<void> {
    const { taskId, runId, group } = task;
    const message: Outgoing = { type: 'workflow-task', value: task, messageId: taskId };
    await this.#send(group, message, (error) =>
      this.#deps.onDecision({ taskId, runId, status: 'failed', commands: [], error }),
    );
  }

  async #send(group: string, message: Outgoing, fail: (error: Failure) => Promise<void> | undefined): Promise<void> {
    const { names, publisher, presence, logger } = this.#deps;
    const queue = names.tasks(group);
    try {
      await publisher.send(queue, message);
    } catch (error) {
      if (!(error instanceof UnsendableError)) throw error;
      logger.error('task_not_sendable', { queue, reason: error.message });
      const failure: Failure = { message: error.message, code: error.code, retryable: false };
      setTimeout(() => void fail(failure)?.catch(() => undefined), NOTED_AFTER_MS);
      return;
    }
    void presence.settled.then(() => presence.adviseOn(group, queue));
  }

  #remember(stepId: string, attempt: number): void {
    this.#last.delete(stepId); // so that the oldest stays first
    this.#last.set(stepId, attempt);
    if (this.#last.size > REMEMBERED) {
      const [oldest] = this.#last.keys();
      if (oldest !== undefined) this.#last.delete(oldest);
    }
  }
}
