/** Requests to an operator and their replies, correlated by request id. */
import type { RunReply, RunRequest, RunRequestKind } from '@dudousxd/nestjs-durable-core';
import { randomUUID } from 'node:crypto';
import { textOf } from './logger.js';
import type { Names } from './names.js';
import type { Publisher } from './publisher.js';

/** Resolves when the handler gets what is sent from then on. */
type OnReply = (handler: (reply: RunReply) => void) => Promise<void>;

export class Requests {
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #onReply: OnReply;
  readonly #waiting = new Map<string, (reply: RunReply) => void>();
  #listening: Promise<void> | undefined;

  constructor(names: Names, publisher: Publisher, onReply: OnReply) {
    this.#names = names;
    this.#publisher = publisher;
    this.#onReply = onReply;
  }

  send(request: RunRequest): Promise<void> {
    return this.#publisher.send(this.#names.runRequest, {
      type: 'run-request',
      value: request,
      messageId: request.requestId,
    });
  }

  /** The reply, or undefined if none came in time. */
  async ask(tenant: string, body: RunRequestKind, timeoutMs: number): Promise<RunReply | undefined> {
    this.#listening ??= this.#onReply((reply) => this.#waiting.get(reply.requestId)?.(reply));
    const listening = this.#listening;
    const requestId = randomUUID();
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<RunReply | undefined>((resolve, reject) => {
        timer = setTimeout(resolve, timeoutMs, undefined);
        this.#waiting.set(requestId, resolve);
        listening.then(() => this.send({ requestId, tenant, body })).catch(reject);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(requestId);
    }
  }
}

/** What the core's responder knows. It answers anything else with an empty success. */
const KNOWN_TO_THE_CORE = new Set<string>([
  'getRunDetail',
  'listRuns',
  'workerHealth',
  'cancel',
  'retry',
  'continue',
  'retryWithInput',
  'redispatch',
  'waitingFor',
]);

export type OnSignal = (signal: string, payload: unknown, tenant: string) => Promise<unknown>;

/** The reply to a request that the core does not know; undefined for one that it does. */
export async function answerBeyondTheCore(
  { requestId, tenant, body }: RunRequest,
  onSignal: OnSignal | undefined,
): Promise<RunReply | undefined> {
  const kind: string = body.kind;
  if (KNOWN_TO_THE_CORE.has(kind)) return undefined;
  if (kind !== 'signal' || onSignal === undefined) {
    const advice = kind === 'signal' ? '; give its RabbitMQTransport an onSignal' : '';
    const message = `this operator does not answer ${kind} requests${advice}`;
    return { requestId, result: { ok: false, error: { message, code: 'unsupported' } } };
  }
  const { signal, payload } = body as unknown as { signal: string; payload?: unknown };
  try {
    await onSignal(signal, payload ?? null, tenant);
    return { requestId, result: { ok: true, data: null } };
  } catch (error) {
    return { requestId, result: { ok: false, error: { message: textOf(error) } } };
  }
}
