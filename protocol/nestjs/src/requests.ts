/** Requests to an operator and their replies, correlated by request id. */
import type { RunReply, RunRequest, RunRequestKind } from '@dudousxd/nestjs-durable-core';
import { randomUUID } from 'node:crypto';
import type { Names } from './names.js';
import type { Publisher } from './publisher.js';

type OnReply = (handler: (reply: RunReply) => void) => void;

export class Requests {
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #onReply: OnReply;
  readonly #waiting = new Map<string, (reply: RunReply) => void>();
  #isListening = false;

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
    if (!this.#isListening) {
      this.#isListening = true;
      this.#onReply((reply) => this.#waiting.get(reply.requestId)?.(reply));
    }
    const requestId = randomUUID();
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise<RunReply | undefined>((resolve, reject) => {
        timer = setTimeout(resolve, timeoutMs, undefined);
        this.#waiting.set(requestId, resolve);
        this.send({ requestId, tenant, body }).catch(reject);
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(requestId);
    }
  }
}
