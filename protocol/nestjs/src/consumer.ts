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
  /** When a handler that is still at it is trusted to have stored what it was given. */
  ackAfterMs?: number;
}

const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5_000;

/** How the client reports an acknowledgement for a channel that is gone: expected, and harmless. */
const LATE_ANSWER = 'failed to ack/nack';

/** The life of one channel; what was delivered on it cannot be answered on another. */
class Generation {
  #end: (status: ConsumerStatus) => void = () => undefined;
  #ended = this.#begin();

  get ended(): Promise<ConsumerStatus> {
    return this.#ended;
  }

  end(): void {
    this.#end(ConsumerStatus.REQUEUE);
    this.#ended = this.#begin();
  }

  #begin(): Promise<ConsumerStatus> {
    return new Promise((resolve) => {
      this.#end = resolve;
    });
  }
}

export class WorkConsumers {
  readonly #broker: Broker;
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #logger: Logger;
  readonly #consumers = new Set<Consumer>();
  readonly #draining = new AbortController();
  readonly #inOrder = new InOrder();

  constructor(broker: Broker, names: Names, publisher: Publisher, logger: Logger) {
    this.#broker = broker;
    this.#names = names;
    this.#publisher = publisher;
    this.#logger = logger;
    setMaxListeners(0, this.#draining.signal); // one for each message that waits to be tried again
  }

  /** See `InOrder`. */
  noteDispatch(runId: string, stepId: string): void {
    this.#inOrder.noteDispatch(runId, stepId);
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
      (message) => Promise.race([handle(message), generation.ended]),
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
    let value: T;
    try {
      value = readMessage<T>(message, subscription.types);
      const refusal = subscription.refusalOf?.(value);
      if (refusal !== undefined) throw new MalformedMessageError(refusal);
    } catch (error) {
      if (!(error instanceof MalformedMessageError)) throw error;
      return this.#bury(subscription.queue, message, error.message);
    }
    const delivery: Delivery<T> = {
      value,
      messageId: message.messageId,
      headers: message.headers ?? {},
      isRepeated: message.redelivered || Number(message.headers?.['x-delivery-count'] ?? 0) > 0,
    };
    const runId = subscription.runOf?.(value);
    const work = () => this.#handle(subscription, delivery);
    return runId === undefined ? work() : this.#inOrder.run(runId, work, subscription.stepOf?.(value));
  }

  /**
   * The engine stores a result first, then goes on with the run, which may take as long as a step.
   * What still runs after this time has been stored; what rejects before has not.
   */
  async #within(ms: number | undefined, handling: Promise<void>): Promise<void> {
    if (ms === undefined) return handling;
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    });
    return Promise.race([handling, patience]).finally(() => clearTimeout(timer));
  }

  async #handle<T>(subscription: Subscription<T>, delivery: Delivery<T>): Promise<ConsumerStatus> {
    const { queue, retryForMs = 0 } = subscription;
    const giveUpAt = Date.now() + retryForMs;
    for (let wait = FIRST_RETRY_MS; ; wait = Math.min(wait * 2, LAST_RETRY_MS)) {
      try {
        await this.#within(subscription.ackAfterMs, subscription.handle(delivery));
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

  async #bury(queue: string, message: AsyncMessage, reason: string): Promise<ConsumerStatus> {
    this.#logger.warn('message_not_understood', { queue, messageId: message.messageId, reason });
    await this.#publisher.sendRaw(this.#names.dead, ...withReason(message, reason));
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
