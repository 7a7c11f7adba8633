/** Messages that must arrive: declared queue, mandatory, confirmed, tried again until they are. */
import { setImmediate as immediate } from 'node:timers/promises';
import type { Publisher as ClientPublisher } from 'rabbitmq-client';
import type { Broker } from './broker.js';
import { TransportClosedError } from './errors.js';
import { textOf, type Logger } from './logger.js';
import type { Names } from './names.js';
import type { Place, Signatures } from './signing.js';
import { exchangesOf, workQueue } from './topology.js';
import { toEnvelope, type Outgoing } from './wire.js';

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;

export class Publisher {
  readonly #broker: Broker;
  readonly #names: Names;
  readonly #logger: Logger;
  readonly #maxBytes: number;
  readonly #signatures: Signatures | undefined;
  readonly #confirmed: ClientPublisher;
  readonly #unconfirmed: ClientPublisher;
  readonly #declared = new Map<string, Promise<unknown>>();
  readonly #returned = new Set<string>();
  #inFlight = 0;
  #onIdle: (() => void)[] = [];

  constructor(broker: Broker, names: Names, logger: Logger, maxBytes: number, signatures?: Signatures) {
    this.#broker = broker;
    this.#names = names;
    this.#logger = logger;
    this.#maxBytes = maxBytes;
    this.#signatures = signatures;
    this.#confirmed = broker.publishing.createPublisher({ confirm: true });
    this.#unconfirmed = broker.publishing.createPublisher({ exchanges: exchangesOf(names) });
    this.#confirmed.on('basic.return', (message) => {
      this.#returned.add(keyOf(message.routingKey, message.messageId));
    });
  }

  /**
   * Resolves when the broker has confirmed the message. Waits through outages. Throws
   * `UnsendableError` for what cannot be sent ever, `TransportClosedError` after `close`.
   */
  async send(queue: string, message: Outgoing): Promise<void> {
    const [properties, body] = toEnvelope(message, queue, this.#maxBytes);
    await this.sendRaw(queue, { ...properties, durable: true }, body);
  }

  /** The same for a message that is passed on as it came; `isOurs`: that we vouch for. */
  async sendRaw(queue: string, properties: object, body: Buffer, { isOurs = true } = {}): Promise<void> {
    const sent = isOurs ? this.#signed(properties, body, { queue }) : properties;
    this.#inFlight += 1;
    try {
      await this.#untilConfirmed(queue, sent, body);
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) for (const wake of this.#onIdle.splice(0)) wake();
    }
  }

  /** Best effort: dropped while there is no connection, unless the sender is patient. */
  async broadcast(
    exchange: string,
    message: Outgoing,
    { routingKey = '', isPatient = false } = {},
  ): Promise<void> {
    if (this.#broker.isClosed || !(isPatient || this.#broker.canPublish)) return;
    try {
      const [properties, body] = toEnvelope(message, exchange, this.#maxBytes);
      const sent = this.#signed(properties, body, { exchange, topic: routingKey });
      await this.#unconfirmed.send({ ...sent, exchange, routingKey }, body);
    } catch (error) {
      if (!this.#broker.isClosed) {
        this.#logger.debug('broadcast_dropped', { exchange, type: message.type, reason: textOf(error) });
      }
    }
  }

  /** Declares the queue once; throws what the broker says against it. */
  async declare(queue: string): Promise<void> {
    let declaration = this.#declared.get(queue);
    if (declaration === undefined) {
      declaration = this.#broker.publishing.queueDeclare(workQueue(queue, this.#names));
      this.#declared.set(queue, declaration);
      declaration.catch(() => this.#declared.delete(queue));
    }
    await declaration;
  }

  /** Messages ready in a queue and its consumers; undefined if there is no such queue. */
  async depthOf(queue: string): Promise<{ ready: number; consumers: number } | undefined> {
    // A channel of its own: the broker closes it if there is no such queue, and all that it carries.
    const channel = await this.#broker.publishing.acquire();
    try {
      const answer = await channel.queueDeclare({ queue, passive: true });
      return { ready: answer.messageCount, consumers: answer.consumerCount };
    } catch (error) {
      if ((error as { code?: string }).code === 'NOT_FOUND') return undefined;
      throw error;
    } finally {
      await channel.close();
    }
  }

  /** Resolves when nothing waits for a confirm any more. */
  async drained(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve));
  }

  /** Ends the channels that messages go out on; a connection does not close before its channels. */
  async close(): Promise<void> {
    await Promise.allSettled([this.#confirmed.close(), this.#unconfirmed.close()]);
  }

  #signed(properties: object, body: Buffer, place: Place): object {
    return this.#signatures?.signed(properties, body, place) ?? properties;
  }

  async #untilConfirmed(queue: string, properties: object, body: Buffer): Promise<void> {
    const key = keyOf(queue, (properties as { messageId?: string }).messageId);
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      if (this.#broker.isClosed) throw new TransportClosedError();
      try {
        await this.declare(queue);
        await this.#confirmed.send({ ...properties, routingKey: queue, mandatory: true }, body);
        await immediate(); // the client tells of a return one tick after its confirm
        if (!this.#returned.delete(key)) return;
        this.#declared.delete(queue);
        throw new Error(`queue ${queue} does not exist any more`);
      } catch (error) {
        if (this.#broker.isClosed) throw new TransportClosedError();
        const is406 = (error as { code?: string }).code === 'PRECONDITION_FAILED';
        this.#logger[is406 ? 'error' : 'warn']('message_not_sent', {
          queue,
          reason: textOf(error),
          next: is406 ? 'delete the queue, or use another prefix; trying again' : 'trying again',
        });
        await this.#broker.pause(wait / 2 + Math.random() * (wait / 2));
      }
    }
  }
}

const keyOf = (queue: string, messageId: string | undefined): string => `${queue}\n${messageId ?? ''}`;
