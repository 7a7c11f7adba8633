/** Deliveries from work queues: each is acknowledged after its handler, never before. */
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import type { AsyncMessage, Consumer } from 'rabbitmq-client';
import { ConsumerStatus } from 'rabbitmq-client';
import type { Broker } from './broker.js';
import { MalformedMessageError } from './errors.js';
import { InOrder } from './in-order.js';
import { textOf, type Logger } from './logger.js';
import type { Names } from './names.js';
import type { Publisher } from './publisher.js';
import { REFUSED_HEADER, SIGNATURE_HEADER, type Signatures } from './signing.js';
import { workQueue } from './topology.js';
import { bytesOf, ERROR_HEADER, readMessage, type MessageType } from './wire.js';

export interface Delivery<T> {
  value: T;
  messageId: string | undefined;
  headers: Record<string, unknown>;
  /** Whether another process, or this one before, may have seen it. */
  isRepeated: boolean;
}

export interface Subscription<T> {
  queue: string;
  types: readonly MessageType[];
  prefetch: number;
  handle: (delivery: Delivery<T>) => Promise<void>;
  /** The run whose inputs are handled one after the other. */
  runOf?: (value: T) => string;
  /** The step that it answers, if it answers one. */
  stepOf?: (value: T) => string;
  /** Why a well-formed message is not taken: it goes to the dead letters. */
  refusalOf?: (value: T) => string | undefined;
  /** How long a failing handler is called again before the message goes back to the queue. */
  retryForMs?: number;
  /** Resolves when what was given is stored, though the handler still goes on; see `Stored`. */
  storedOf?: (value: T) => Stored;
}

/** The engine stores a result, then goes on with the run, which may take as long as a step. */
export interface Stored {
  done: Promise<void>;
  forget: () => void;
}

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;

/** How the client reports an acknowledgement for a channel that is gone: expected, and harmless. */
const LATE_ANSWER = 'failed to ack/nack';

/** The life of one channel; what was delivered on it cannot be answered on another. */
class Generation {
  readonly #waiting = new Set<(status: ConsumerStatus) => void>();

  /** The status of the work, or REQUEUE once the channel is gone: then nobody can use it. */
  async race(work: Promise<ConsumerStatus>): Promise<ConsumerStatus> {
    let leave: (status: ConsumerStatus) => void = () => undefined;
    const ended = new Promise<ConsumerStatus>((resolve) => (leave = resolve));
    this.#waiting.add(leave);
    try {
      return await Promise.race([work, ended]);
    } finally {
      this.#waiting.delete(leave);
    }
  }

  end(): void {
    for (const leave of this.#waiting) leave(ConsumerStatus.REQUEUE);
  }
}

export class WorkConsumers {
  readonly #broker: Broker;
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #logger: Logger;
  readonly #signatures: Signatures | undefined;
  readonly #consumers = new Set<Consumer>();
  readonly #draining = new AbortController();
  readonly #inOrder = new InOrder();

  constructor(broker: Broker, names: Names, publisher: Publisher, logger: Logger, signatures?: Signatures) {
    this.#broker = broker;
    this.#names = names;
    this.#publisher = publisher;
    this.#logger = logger;
    this.#signatures = signatures;
    setMaxListeners(0, this.#draining.signal); // one for each message that waits to be tried again
  }

  /** See `InOrder`. */
  noteDispatch(runId: string, stepId: string): void {
    this.#inOrder.noteDispatch(runId, stepId);
  }

  /** Runs something else in the run's turn. */
  inTurn<T>(runId: string, work: () => Promise<T>): Promise<T> {
    return this.#inOrder.run(runId, work);
  }

  /** Takes no more, gives back what its handler refuses, and resolves when no handler runs. */
  async drain(): Promise<void> {
    this.#draining.abort();
    await Promise.allSettled([...this.#consumers].map((each) => each.close()));
  }

  /** Resolves when the broker delivers. Goes on by itself after every loss of the connection. */
  async subscribe<T>(subscription: Subscription<T>): Promise<void> {
    await this.subscribeRaw(subscription.queue, subscription.prefetch, (message) =>
      this.#take(subscription, message),
    );
  }

  async subscribeRaw(
    queue: string,
    prefetch: number,
    handle: (message: AsyncMessage) => Promise<ConsumerStatus>,
  ): Promise<void> {
    if (queue !== this.#names.dead) await this.#declarePatiently(this.#names.dead);
    await this.#declarePatiently(queue);
    const generation = new Generation();
    const consumer = this.#broker.consuming.createConsumer(
      { queue, queueOptions: workQueue(queue, this.#names), qos: { prefetchCount: prefetch } },
      // A handler that outlives its connection must not hold up consuming on the next one.
      (message) => generation.race(handle(message)),
    );
    this.#consumers.add(consumer);
    const isUp = new Promise<void>((resolve) => consumer.once('ready', resolve));
    consumer.on('error', (error) => {
      if (this.#broker.isClosed || textOf(error).startsWith(LATE_ANSWER)) return;
      this.#logger.debug('consumer_interrupted', { queue, reason: textOf(error) });
      generation.end();
    });
    this.#broker.consuming.on('error', () => generation.end());
    await Promise.race([isUp, aborted(this.#broker.closing)]);
  }

  async #declarePatiently(queue: string): Promise<void> {
    for (let wait = FIRST_RETRY_MS; !this.#broker.isClosed; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      try {
        await this.#publisher.declare(queue);
        return;
      } catch (error) {
        if (this.#broker.isClosed) return;
        this.#logger.warn('queue_not_declared', { queue, reason: textOf(error), next: 'trying again' });
        await this.#broker.pause(wait).catch(() => undefined);
      }
    }
  }

  async #take<T>(subscription: Subscription<T>, message: AsyncMessage): Promise<ConsumerStatus> {
    const flaw = this.#signatures?.refusalOf(message, { queue: subscription.queue });
    if (flaw !== undefined) return this.#buryUnverified(subscription.queue, message, flaw);
    let value: T;
    try {
      value = readMessage<T>(message, subscription.types);
      const refusal = subscription.refusalOf?.(value);
      if (refusal !== undefined) throw new MalformedMessageError(refusal);
    } catch (error) {
      if (!(error instanceof MalformedMessageError)) throw error;
      return this.#bury(subscription.queue, message, error.message, subscription.types[0]);
    }
    const delivery: Delivery<T> = {
      value,
      messageId: message.messageId,
      headers: message.headers ?? {},
      isRepeated: message.redelivered || Number(message.headers?.['x-delivery-count'] ?? 0) > 0,
    };
    const runId = subscription.runOf?.(value);
    const work = () => this.#handle(subscription, delivery);
    if (runId === undefined) return work();
    const handling = this.#inOrder.run(runId, work, subscription.stepOf?.(value));
    const stored = subscription.storedOf?.(value);
    return stored === undefined ? handling : this.#stored(handling, stored);
  }

  /** Acknowledged once it is stored; the run stays taken until its handler ends. */
  async #stored(handling: Promise<ConsumerStatus>, stored: Stored): Promise<ConsumerStatus> {
    try {
      return await Promise.race([handling, stored.done.then(() => ConsumerStatus.ACK)]);
    } finally {
      stored.forget();
    }
  }

  async #handle<T>(subscription: Subscription<T>, delivery: Delivery<T>): Promise<ConsumerStatus> {
    const { queue, retryForMs = 0 } = subscription;
    const giveUpAt = Date.now() + retryForMs;
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      try {
        await subscription.handle(delivery);
        return ConsumerStatus.ACK;
      } catch (error) {
        if (this.#draining.signal.aborted) return ConsumerStatus.REQUEUE;
        const isOver = Date.now() + wait > giveUpAt;
        this.#logger.warn('message_not_applied', {
          queue,
          messageId: delivery.messageId,
          reason: textOf(error),
          next: isOver ? 'back to the queue' : 'trying again',
        });
        if (isOver) return ConsumerStatus.REQUEUE;
        await delay(wait, undefined, { signal: this.#draining.signal }).catch(() => undefined);
        if (this.#draining.signal.aborted) return ConsumerStatus.REQUEUE;
      }
    }
  }

  /** Nobody shall act on this letter: neither is it signed by us, nor does its own signature go along. */
  async #buryUnverified(queue: string, message: AsyncMessage, flaw: string): Promise<ConsumerStatus> {
    const { [SIGNATURE_HEADER]: signature, ...headers } = message.headers ?? {};
    const letter = { ...message, headers: { ...headers, ...(signature === undefined ? {} : { [REFUSED_HEADER]: signature }) } };
    await this.#publisher.sendRaw(this.#names.dead, ...withReason(letter, `on queue '${queue}' ${flaw}`), { isOurs: false });
    return ConsumerStatus.ACK;
  }

  async #bury(queue: string, message: AsyncMessage, reason: string, type?: MessageType): Promise<ConsumerStatus> {
    this.#logger.warn('message_not_understood', { queue, messageId: message.messageId, reason });
    const known = { ...message, type: message.type ?? type };
    await this.#publisher.sendRaw(this.#names.dead, ...withReason(known, reason));
    return ConsumerStatus.ACK;
  }
}

/** A message as it came, with the reason on it. */
export function withReason(message: AsyncMessage, reason: string): [object, Buffer] {
  const { contentType, type, messageId, timestamp, headers } = message;
  const properties = {
    contentType,
    type,
    messageId,
    timestamp,
    durable: true,
    headers: { ...headers, [ERROR_HEADER]: reason },
  };
  return [properties, bytesOf(message)];
}

const aborted = (signal: AbortSignal): Promise<void> =>
  signal.aborted
    ? Promise.resolve()
    : new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
