/** The two connections of a process: a blocked publisher must not stop consuming, acks included. */
import { setMaxListeners } from 'node:events';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { Connection } from 'rabbitmq-client';
import { batchWrites } from './batching.js';
import { TransportClosedError } from './errors.js';
import { textOf, type Logger } from './logger.js';
import { withoutPassword } from './options.js';

const HEARTBEAT_SECONDS = 10;
const RETRY_LOW_MS = 200;
const RETRY_HIGH_MS = 5_000;
const FRAME_BYTES = 131_072;

export class Broker {
  readonly publishing: Connection;
  readonly consuming: Connection;
  readonly #logger: Logger;
  readonly #closing = new AbortController();
  /** To the client, a socket whose writes are held for a moment looks like one that is blocked. */
  readonly #isHeld = new Map<Connection, () => boolean>();
  #isBlocked = false;
  #isReachable: boolean | undefined;

  constructor(url: string, name: string, logger: Logger) {
    this.#logger = logger;
    this.publishing = this.#connect(url, `${name} publishing`);
    this.consuming = this.#connect(url, `${name} consuming`);
    this.publishing.on('connection', () => (this.#isBlocked = false));
    this.publishing.on('connection.blocked', () => (this.#isBlocked = true));
    this.publishing.on('connection.unblocked', () => (this.#isBlocked = false));
    // One listener for each queue and each message that waits: many, and no leak.
    setMaxListeners(0, this.#closing.signal, this.publishing, this.consuming);
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Whether what is published now goes out: connected, and not blocked by the broker. */
  get canPublish(): boolean {
    return this.#isConnected(this.publishing) && !this.#isBlocked;
  }

  #isConnected(connection: Connection): boolean {
    return connection.ready || this.#isHeld.get(connection)?.() === true;
  }

  /** Aborted once `close` begins. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Milliseconds, cut short by `close`: then throws `TransportClosedError`. */
  async pause(ms: number): Promise<void> {
    try {
      await delay(ms, undefined, { signal: this.closing });
    } catch {
      throw new TransportClosedError();
    }
  }

  beginClosing(): void {
    this.#closing.abort();
  }

  async close(channels: Iterable<{ close(): Promise<void> }>): Promise<void> {
    // Without a connection there is nothing to say goodbye to.
    const isConnected = this.#isConnected(this.publishing) || this.#isConnected(this.consuming);
    const patience = delay(isConnected ? 5_000 : 0, false, { ref: false });
    const orderly = Promise.allSettled([...channels].map((each) => each.close()))
      .then(() => Promise.allSettled([this.publishing.close(), this.consuming.close()]))
      .then(() => true);
    if (!(await Promise.race([orderly, patience]))) {
      this.publishing.unsafeDestroy();
      this.consuming.unsafeDestroy();
    }
  }

  #connect(url: string, connectionName: string): Connection {
    const connection = new Connection({
      url,
      connectionName,
      heartbeat: HEARTBEAT_SECONDS,
      retryLow: RETRY_LOW_MS,
      retryHigh: RETRY_HIGH_MS,
      frameMax: FRAME_BYTES,
      noDelay: true, // else a confirm waits some 40 ms for the delayed acknowledgement of TCP
    });
    connection.on('connection', () => {
      // Internal to the client, whose version is pinned; without it messages go out one by one.
      const { _socket: socket } = connection as unknown as { _socket?: Socket };
      if (socket !== undefined) this.#isHeld.set(connection, batchWrites(socket));
      this.#report(url, true);
    });
    connection.on('error', (error) => this.#report(url, false, textOf(error)));
    connection.on('connection.blocked', (reason) => this.#logger.warn('broker_blocks_publishing', { reason }));
    connection.on('connection.unblocked', () => this.#logger.info('broker_unblocked'));
    return connection;
  }

  /** One line for each change, not one for each attempt. */
  #report(url: string, isReachable: boolean, reason?: string): void {
    if (this.isClosed || this.#isReachable === isReachable) return;
    this.#isReachable = isReachable;
    const broker = withoutPassword(url);
    if (isReachable) this.#logger.info('broker_connected', { broker });
    else this.#logger.warn('broker_unreachable', { broker, reason, next: 'trying again until it answers' });
  }
}
