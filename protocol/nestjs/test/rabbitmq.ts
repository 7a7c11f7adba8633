/** RabbitMQ for tests: a prefix of their own, and nothing left behind. */
import { randomUUID } from 'node:crypto';
import type { RemoteTask, StepHandler, WorkflowTask } from '@dudousxd/nestjs-durable-core';
import { Connection, type SyncMessage } from 'rabbitmq-client';
import { eventually } from '../src/conformance/bench.js';
import { RabbitMQTransport, type Logger, type RabbitMQTransportOptions } from '../src/index.js';
import { Names, routingToken } from '../src/names.js';
import { Signatures, type SigningOptions } from '../src/signing.js';
import { exchangesOf, workQueue } from '../src/topology.js';
import type { MessageType } from '../src/wire.js';

export const AMQP_URL = process.env['AMQP_URL'] ?? 'amqp://guest:guest@127.0.0.1:5672';

export interface Line {
  level: 'debug' | 'info' | 'warn' | 'error';
  event: string;
  fields: Record<string, unknown>;
}

/** Keeps what is logged, for a test to look at. */
export class Lines implements Logger {
  readonly all: Line[] = [];
  readonly debug = this.#keep('debug');
  readonly info = this.#keep('info');
  readonly warn = this.#keep('warn');
  readonly error = this.#keep('error');

  of(event: string): Line[] {
    return this.all.filter((line) => line.event === event);
  }

  #keep(level: Line['level']) {
    return (event: string, fields: Record<string, unknown> = {}): void => void this.all.push({ level, event, fields });
  }
}

export class Lab {
  readonly prefix = `test-${randomUUID().slice(0, 8)}`;
  readonly names: Names;
  readonly lines = new Lines();
  /** Of a lab whose transports sign: what it publishes itself is signed, too. */
  readonly signatures: Signatures | undefined;
  readonly #tokens = new Set<string>();
  readonly #transports: RabbitMQTransport[] = [];
  #raw: Connection | undefined;

  constructor(readonly namespace?: string, readonly signing?: SigningOptions) {
    this.names = new Names(this.prefix, namespace);
    this.signatures = signing === undefined ? undefined : new Signatures(signing, this.names.dead, this.lines);
  }

  /** A transport that is closed with the lab. */
  open(options: Partial<RabbitMQTransportOptions> = {}): RabbitMQTransport {
    const noted = (token: string) => this.#tokens.add(token);
    class NotedTransport extends RabbitMQTransport {
      override dispatch(task: RemoteTask): Promise<void> {
        noted(task.group);
        return super.dispatch(task);
      }
      override resend(task: RemoteTask): Promise<void> {
        noted(task.group);
        return super.resend(task);
      }
      override dispatchWorkflowTask(task: WorkflowTask): Promise<void> {
        noted(task.group);
        return super.dispatchWorkflowTask(task);
      }
      override handle(name: string, handler: StepHandler, partition = options.partition): void {
        noted(routingToken(name, partition));
        super.handle(name, handler, partition);
      }
    }
    const transport = new NotedTransport({
      url: AMQP_URL,
      prefix: this.prefix,
      ...(this.namespace === undefined ? {} : { namespace: this.namespace }),
      ...(this.signing === undefined ? {} : { signing: this.signing }),
      logger: this.lines,
      ...options,
    });
    this.#transports.push(transport);
    return transport;
  }

  /** A connection beside the transport, for looking at what it does. */
  get raw(): Connection {
    if (this.#raw === undefined) {
      this.#raw = new Connection({ url: AMQP_URL, noDelay: true });
      this.#raw.on('error', () => undefined);
    }
    return this.#raw;
  }

  async declare(queue: string): Promise<void> {
    if (queue.startsWith(this.names.tasks(''))) this.#tokens.add(queue.slice(this.names.tasks('').length));
    await this.raw.queueDeclare(workQueue(this.names.dead, this.names));
    await this.raw.queueDeclare(workQueue(queue, this.names));
  }

  /** Publishes a body as it is, with the properties that the protocol asks for. */
  async publish(queue: string, type: MessageType | undefined, body: unknown, more: object = {}): Promise<void> {
    await this.declare(queue);
    const publisher = this.raw.createPublisher({ confirm: true });
    const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body), 'utf8');
    const properties = { contentType: 'application/json', type, headers: { 'durable-protocol': 1 }, ...more };
    const sent = this.signatures?.signed(properties, bytes, { queue }) ?? properties;
    await publisher.send({ ...sent, routingKey: queue, durable: true }, bytes);
    await publisher.close();
  }

  async broadcast(exchange: string, type: MessageType, body: unknown, more: object = {}): Promise<void> {
    const publisher = this.raw.createPublisher({ confirm: true, exchanges: exchangesOf(this.names) });
    const bytes = Buffer.from(JSON.stringify(body), 'utf8');
    const properties = { contentType: 'application/json', type, headers: { 'durable-protocol': 1 }, ...more };
    const sent = this.signatures?.signed(properties, bytes, { exchange, topic: '' }) ?? properties;
    await publisher.send({ ...sent, exchange }, bytes);
    await publisher.close();
  }

  /** The next message of a queue, taken off it. */
  async next(queue: string): Promise<SyncMessage> {
    let found: SyncMessage | undefined;
    await eventually(`a message in ${queue}`, async () => {
      found = await this.raw.basicGet({ queue, noAck: true }).catch(() => undefined);
      return found !== undefined;
    });
    return found as SyncMessage;
  }

  async depthOf(queue: string): Promise<number> {
    await this.declare(queue);
    return (await this.raw.queueDeclare({ queue, passive: true })).messageCount;
  }

  async close(): Promise<void> {
    await Promise.all(this.#transports.map((each) => each.close()));
    const { results, decisions, stepEvents, startRun, runRequest, dead } = this.names;
    const tasks = [...this.#tokens].map((token) => this.names.tasks(token)).filter((queue) => Buffer.byteLength(queue) <= 255);
    for (const queue of [results, decisions, stepEvents, startRun, runRequest, dead, ...tasks]) {
      await twice(() => this.raw.queueDelete({ queue }));
    }
    for (const { exchange } of exchangesOf(this.names)) await twice(() => this.raw.exchangeDelete({ exchange }));
    await this.raw.close();
  }
}

/** A channel that the broker closed for an earlier mistake fails what comes next on it, once. */
const twice = (work: () => Promise<unknown>): Promise<unknown> => work().catch(work);

/** Runs a test in a lab of its own. */
export function inLab(
  test: (lab: Lab) => Promise<void>,
  namespace?: string,
  signing?: SigningOptions,
): () => Promise<void> {
  return async () => {
    const lab = new Lab(namespace, signing);
    try {
      await test(lab);
    } finally {
      await lab.close();
    }
  };
}
