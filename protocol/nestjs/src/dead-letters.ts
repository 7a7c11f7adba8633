/** Consumes the dead letters and fails what they can be attributed to: protocol/README.md, "Delivery". */
import type { StepResult, WorkflowDecision } from '@dudousxd/nestjs-durable-core';
import { ConsumerStatus, type AsyncMessage } from 'rabbitmq-client';
import type { WorkConsumers } from './consumer.js';
import { textOf, type Logger } from './logger.js';
import type { Names } from './names.js';
import type { DeadLetter } from './options.js';
import type { Publisher } from './publisher.js';
import type { Signatures } from './signing.js';
import { addresseeOf, attemptIn, bytesOf, ERROR_HEADER, RESENT_HEADER, type MessageType } from './wire.js';

const PREFETCH = 20;
const SECOND_CHANCES = 2;
const FIRST_PAUSE_MS = 1_000;
const LAST_PAUSE_MS = 30_000;
/** Answers are not to blame for operators that died beside them. */
const ANSWERS = new Set<string>(['step-result', 'workflow-decision', 'start-run']);
/** Nothing waits for these. */
const HARMLESS = new Set<string>([
  'step-event', 'heartbeat', 'control', 'run-request', 'run-reply', 'tenant-event', 'worker-beat', 'worker-descriptor', 'who',
]);

export interface Verdicts {
  /** `attempt`: of the task that it answers, if the letter still tells. */
  onResult(result: StepResult, attempt: number | undefined): Promise<void>;
  onDecision(decision: WorkflowDecision): Promise<void>;
}

export interface DeadLettersDependencies {
  names: Names;
  publisher: Publisher;
  consumers: WorkConsumers;
  logger: Logger;
  verdicts: Verdicts;
  signatures: Signatures | undefined;
  keep: ((letter: DeadLetter) => Promise<void>) | undefined;
  pause: (ms: number) => Promise<void>;
}

export class DeadLetters {
  readonly #deps: DeadLettersDependencies;

  constructor(deps: DeadLettersDependencies) {
    this.#deps = deps;
  }

  consume(): Promise<void> {
    return this.#deps.consumers.subscribeRaw(this.#deps.names.dead, PREFETCH, (message) => this.#take(message));
  }

  /** Until it works: a dead letter that goes back to its queue too often may be dropped by the broker. */
  async #take(message: AsyncMessage): Promise<ConsumerStatus> {
    const flaw = this.#deps.signatures?.refusalOf(message, { queue: this.#deps.names.dead });
    for (let wait = FIRST_PAUSE_MS; ; wait = Math.min(wait * 2, LAST_PAUSE_MS)) {
      try {
        // Anybody can write a letter about any run: without a signature it is only kept.
        if (flaw !== undefined) await this.#record(message, `kept; ${flaw}`);
        else if (!(await this.#triedAgain(message))) await this.#record(message, await this.#fail(message));
        return ConsumerStatus.ACK;
      } catch (error) {
        this.#deps.logger.warn('dead_letter_not_applied', {
          messageId: message.messageId,
          reason: textOf(error),
          next: 'trying again',
        });
      }
      try {
        await this.#deps.pause(wait);
      } catch {
        return ConsumerStatus.REQUEUE;
      }
    }
  }

  /**
   * A broker that gives up on a message only counts deliveries: whoever held it died, perhaps of
   * something else. Tasks get two more chances, answers and starts simply come again.
   */
  async #triedAgain(message: AsyncMessage): Promise<boolean> {
    const queue = this.#queueOf(message);
    if (queue === undefined) return false;
    const times = Number(message.headers?.[RESENT_HEADER] ?? 0);
    const isAnswer = ANSWERS.has(message.type ?? '');
    if (!isAnswer && (!Number.isSafeInteger(times) || times >= SECOND_CHANCES)) return false;
    const { contentType, type, messageId, headers } = message;
    const kept = Object.entries(headers ?? {}).filter(([key]) => !key.startsWith('x-'));
    const properties = {
      contentType,
      type,
      messageId,
      durable: true,
      headers: { ...Object.fromEntries(kept), [RESENT_HEADER]: String(Number.isSafeInteger(times) ? times + 1 : 1) },
    };
    await this.#deps.publisher.sendRaw(queue, properties, bytesOf(message));
    this.#deps.logger.warn('message_sent_again', { queue, messageId, times: times + 1 });
    return true;
  }

  /** Where the broker took it from. */
  #queueOf(message: AsyncMessage): string | undefined {
    // Of what is signed, the sender tells: anybody can write the broker's headers.
    const { signatures } = this.#deps;
    if (signatures?.isRequired === true) {
      const origin = signatures.originOf(message);
      if (origin !== undefined) return origin;
    }
    if (ERROR_HEADER in (message.headers ?? {})) return undefined;
    const [death] = (message.headers?.['x-death'] ?? []) as { queue?: string; reason?: string }[];
    return death?.reason === 'delivery_limit' ? death.queue : undefined;
  }

  async #fail(message: AsyncMessage): Promise<string> {
    const type = message.type as MessageType | undefined;
    const addressee = type !== undefined && HARMLESS.has(type) ? undefined : addresseeOf(message);
    if (addressee === undefined) return 'kept';
    const { runId, seq, taskId } = addressee;
    const error = { message: `poison message: ${reasonOf(message)}`, code: 'poison', retryable: false };
    if (taskId !== undefined) {
      await this.#deps.verdicts.onDecision({ taskId, runId, status: 'failed', commands: [], error });
      return 'turn failed';
    }
    if (seq === undefined) return 'kept';
    const result: StepResult = { runId, seq, stepId: `${runId}:${seq}`, status: 'failed', error };
    await this.#deps.verdicts.onResult(result, attemptIn(message.messageId));
    return 'step failed';
  }

  async #record(message: AsyncMessage, verdict: string): Promise<void> {
    const letter: DeadLetter = {
      type: message.type,
      messageId: message.messageId,
      reason: reasonOf(message),
      body: bytesOf(message),
      headers: message.headers ?? {},
    };
    this.#deps.logger.error('dead_letter', {
      type: letter.type,
      messageId: letter.messageId,
      attempt: attemptIn(letter.messageId),
      reason: letter.reason,
      verdict,
      ...(this.#deps.keep === undefined ? { body: letter.body.toString('utf8') } : {}),
    });
    await this.#deps.keep?.(letter);
  }
}

function reasonOf(message: AsyncMessage): string {
  const stated: unknown = message.headers?.[ERROR_HEADER];
  return typeof stated === 'string'
    ? stated
    : `it was delivered too often without being answered (${message.type ?? 'untyped'})`;
}

