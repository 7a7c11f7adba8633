import { TransportOptionsError } from './errors.js';
import { stderrLogger, type Logger } from './logger.js';
import type { OnSignal } from './requests.js';
import type { SigningOptions } from './signing.js';
import type { TurnStore } from './turns.js';

export interface RabbitMQTransportOptions {
  /** `amqp://user:password@host:5672/vhost`, or `amqps://...`. */
  url: string;
  /** First part of every queue's and exchange's name; the workers' must be the same. Default `durable`. */
  prefix?: string;
  /** Second part of every name, to keep whole deployments apart on one broker. */
  namespace?: string;
  /** Suffix of the task queues of steps that `handle` serves here. */
  partition?: string;
  /** Unique among operators and workers. Default: made of host name, process id and a random part. */
  instanceId?: string;
  /** Steps of `handle` that run at once. Default 10. */
  concurrency?: number;
  /**
   * Whether results, decisions and requests are consumed as soon as a handler for them is there.
   * `false` waits for `start()`: call it when the application is up, so that nothing arrives
   * before the workflows are registered. Default true.
   */
  autoStart?: boolean;
  /** Largest body that is sent, in bytes. RabbitMQ's own limit by default is 16 MiB. */
  maxMessageBytes?: number;
  /**
   * Gets every dead letter that names no step and no turn, or that failed one; reject to get it
   * again. Without it such a letter is logged whole and then forgotten.
   */
  onDeadLetter?: (letter: DeadLetter) => Promise<void>;
  /**
   * Delivers signals that clients send over the broker: `(name, payload) => engine.signal(name, payload)`.
   * Signal names are global to an engine, so that a tenant could reach the runs of another; refuse
   * here what a tenant must not send. Without it such requests are answered `unsupported`.
   */
  onSignal?: OnSignal;
  /**
   * The engine's own store. With it, a signal or a child's end that comes while a decision of the
   * same run is being applied does no harm; without it, one may be lost, or fail the run.
   */
  store?: TurnStore;
  /** Signs what is sent and, unless told otherwise, acts on nothing that has no signature of its place. */
  signing?: SigningOptions;
  logger?: Logger;
}

/** A message that nobody could understand or answer. */
export interface DeadLetter {
  type: string | undefined;
  messageId: string | undefined;
  reason: string;
  body: Buffer;
  headers: Record<string, unknown>;
}

export interface Settings {
  url: string;
  prefix: string;
  namespace: string | undefined;
  partition: string | undefined;
  instanceId: string;
  concurrency: number;
  autoStart: boolean;
  maxMessageBytes: number;
  onDeadLetter: ((letter: DeadLetter) => Promise<void>) | undefined;
  onSignal: OnSignal | undefined;
  store: TurnStore | undefined;
  signing: SigningOptions | undefined;
  logger: Logger;
}

const MiB = 1024 * 1024;

/** Throws `TransportOptionsError`, saying which option is wrong and what it may be. */
export function settingsOf(options: RabbitMQTransportOptions, newId: () => string): Settings {
  requireUrl(options.url);
  const concurrency = options.concurrency ?? 10;
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 65_535) {
    throw new TransportOptionsError(`concurrency is ${concurrency}; it must be an integer from 1 to 65535`);
  }
  const { maxMessageBytes } = options;
  if (maxMessageBytes !== undefined && !(Number.isSafeInteger(maxMessageBytes) && maxMessageBytes > 0)) {
    throw new TransportOptionsError(`maxMessageBytes is ${maxMessageBytes}; it must be a positive integer`);
  }
  for (const key of ['prefix', 'namespace', 'partition', 'instanceId'] as const) {
    const value = options[key];
    if (value !== undefined && (typeof value !== 'string' || Buffer.byteLength(value) > 100)) {
      throw new TransportOptionsError(`${key} must be text of at most 100 bytes`);
    }
  }
  return {
    url: options.url,
    prefix: options.prefix || 'durable',
    namespace: options.namespace,
    partition: options.partition,
    instanceId: options.instanceId || newId(),
    concurrency,
    autoStart: options.autoStart ?? true,
    maxMessageBytes: options.maxMessageBytes ?? 16 * MiB,
    onDeadLetter: options.onDeadLetter,
    onSignal: options.onSignal,
    store: options.store,
    signing: options.signing,
    logger: options.logger ?? stderrLogger(),
  };
}

function requireUrl(url: unknown): void {
  const advice = 'url must look like amqp://user:password@host:5672/vhost';
  if (typeof url !== 'string') throw new TransportOptionsError(advice);
  let scheme: string;
  try {
    scheme = new URL(url).protocol;
  } catch {
    throw new TransportOptionsError(advice);
  }
  if (scheme !== 'amqp:' && scheme !== 'amqps:') {
    throw new TransportOptionsError(`${advice}, not ${scheme}//...`);
  }
}

/** The URL without its password, for logs. */
export function withoutPassword(url: string): string {
  const shown = new URL(url);
  shown.password = '';
  shown.username = '';
  return shown.href;
}
