/** What is broadcast, on a queue of the listener's own for each exchange. */
import type { AsyncMessage, Consumer } from 'rabbitmq-client';
import type { Broker } from './broker.js';
import { MalformedMessageError } from './errors.js';
import { textOf, type Logger } from './logger.js';
import type { Names } from './names.js';
import type { Signatures } from './signing.js';
import { listenerOn } from './topology.js';
import { readMessage, type MessageType } from './wire.js';

export class Listeners {
  readonly #broker: Broker;
  readonly #names: Names;
  readonly #logger: Logger;
  readonly #signatures: Signatures | undefined;
  readonly #open = new Set<Consumer>();

  constructor(broker: Broker, names: Names, logger: Logger, signatures?: Signatures) {
    this.#broker = broker;
    this.#names = names;
    this.#logger = logger;
    this.#signatures = signatures;
  }

  get all(): ReadonlySet<Consumer> {
    return this.#open;
  }

  add(listener: Consumer): void {
    this.#open.add(listener);
  }

  /** A handler that throws, or a message that breaks the protocol, is logged and forgotten. */
  open<T>(exchange: string, routingKey: string, type: MessageType, handler: (value: T) => void): Consumer {
    const listener = this.#broker.consuming.createConsumer(
      listenerOn(exchange, routingKey, this.#names),
      (message: AsyncMessage) => {
        if (this.#signatures?.refusalOf(message, { exchange, topic: message.routingKey }) !== undefined) return;
        try {
          handler(readMessage<T>(message, [type]));
        } catch (error) {
          const event = error instanceof MalformedMessageError ? 'broadcast_not_understood' : 'broadcast_not_applied';
          this.#logger.warn(event, { exchange, reason: textOf(error) });
        }
      },
    );
    listener.on('error', (error) => {
      if (!this.#broker.isClosed) this.#logger.debug('listener_interrupted', { exchange, reason: textOf(error) });
    });
    this.#open.add(listener);
    return listener;
  }

  /** Resolves when it listens, or never will. */
  isUp(listener: Consumer): Promise<void> {
    return new Promise<void>((resolve) => {
      listener.once('ready', resolve);
      this.#broker.closing.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  close(listener: Consumer): void {
    this.#open.delete(listener);
    void listener.close().catch(() => undefined);
  }
}
