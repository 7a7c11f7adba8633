/** Talks with the workers: asks who they are, and says who is here if steps are served here. */
import { randomUUID } from 'node:crypto';
import { memoryUsage } from 'node:process';
import { descriptorHash, LEGACY_V1_CAPABILITIES, type WorkerDescriptor, type WorkerStatus } from '@dudousxd/nestjs-durable-core';
import type { AsyncMessage } from 'rabbitmq-client';
import type { Broker } from './broker.js';
import { MalformedMessageError } from './errors.js';
import type { Logger } from './logger.js';
import type { Names } from './names.js';
import type { Publisher } from './publisher.js';
import { rangeOf, Registry, type Lifecycle, type WorkerAnnouncement, type WorkerBeat } from './registry.js';
import type { Signatures } from './signing.js';
import { listenerOn } from './topology.js';
import { PROTOCOL, readMessage, valueOf } from './wire.js';

const BEAT_EVERY_MS = 10_000;
const EXPIRES_MS = 35_000;
const SETTLED_AFTER_MS = 500;
const ASK_AT_MOST_EVERY_MS = 1_000;
const REPEAT_ADVICE_MS = 60_000;
const TYPES = ['worker-beat', 'worker-descriptor', 'who'] as const;
export const SDK = { name: 'nestjs-durable-transport-rabbitmq', version: '0.1.0' };

/** What this process serves itself. */
export interface Served {
  steps(): string[];
  groups(): string[];
  status(): WorkerStatus;
}

export class Presence {
  readonly registry: Registry;
  /** Resolves when those who were asked have had their time to answer. */
  readonly settled: Promise<void>;
  readonly #names: Names;
  readonly #publisher: Publisher;
  readonly #logger: Logger;
  readonly #instanceId: string;
  readonly #served: Served;
  readonly #place: { partition?: string; namespace?: string };
  readonly #startedAt = Date.now();
  readonly #advised = new Map<string, number>();
  #lastWho = 0;
  #beating: NodeJS.Timeout | undefined;

  constructor(
    broker: Broker,
    names: Names,
    publisher: Publisher,
    logger: Logger,
    instanceId: string,
    served: Served,
    place: { partition?: string; namespace?: string },
    signatures?: Signatures,
  ) {
    this.registry = new Registry();
    this.#names = names;
    this.#publisher = publisher;
    this.#logger = logger;
    this.#instanceId = instanceId;
    this.#served = served;
    this.#place = place;
    const listener = broker.consuming.createConsumer(listenerOn(names.workers, '', names), (message) => {
      const at = { exchange: names.workers, topic: message.routingKey };
      if (signatures?.refusalOf(message, at) === undefined) this.#onMessage(message);
    });
    listener.on('error', () => undefined);
    this.settled = new Promise<void>((resolve) => {
      listener.on('ready', () => {
        this.#lastWho = 0;
        void this.#ask();
        if (this.#served.steps().length > 0) void this.announce();
        setTimeout(resolve, SETTLED_AFTER_MS).unref();
      });
      broker.closing.addEventListener('abort', () => resolve(), { once: true });
    });
    this.listener = listener;
  }

  readonly listener: ReturnType<Broker['consuming']['createConsumer']>;

  /** Announces this process as a worker, from now on every 10 s. */
  async announce(): Promise<void> {
    this.#beating ??= setInterval(() => void this.#beat('up'), BEAT_EVERY_MS).unref();
    const announcement = { groups: this.#served.groups(), descriptor: this.#descriptor() };
    await this.#publisher.broadcast(this.#names.workers, { type: 'worker-descriptor', value: announcement });
    await this.#beat('up');
  }

  async sayGoodbye(): Promise<void> {
    if (this.#beating === undefined) return;
    clearInterval(this.#beating);
    await this.#beat('stopped');
  }

  /** Tells, at most once a minute for each group, that a task was sent where nobody takes it. */
  adviseOn(group: string, queue: string): void {
    if (this.registry.serves(group) || !this.#mayAdvise(`group ${group}`)) return;
    const elsewhere = this.registry.alternativesTo(group);
    this.#logger.warn('no_worker_for_group', {
      group,
      queue,
      liveGroups: this.registry.groups().slice(0, 50),
      next:
        elsewhere.length > 0
          ? `workers serve ${elsewhere.join(', ')}: start one on the partition of ${group}, or call the step on theirs`
          : `start a worker that serves ${group}; its prefix and namespace must make ${this.#names.effectivePrefix}, its vhost be this one`,
    });
  }

  #mayAdvise(subject: string): boolean {
    const now = Date.now();
    if (now - (this.#advised.get(subject) ?? -Infinity) < REPEAT_ADVICE_MS) return false;
    if (this.#advised.size > 1_000) this.#advised.clear();
    this.#advised.set(subject, now);
    return true;
  }

  #onMessage(message: AsyncMessage): void {
    try {
      // Whatever it speaks: how else would a worker of another version be told so?
      const value = readMessage<unknown>(message, TYPES, { isAnyMajor: true });
      if (message.type === 'worker-beat') this.#onBeat(value as WorkerBeat);
      else if (message.type === 'worker-descriptor') this.#onAnnouncement(value as WorkerAnnouncement);
      else if (this.#served.steps().length > 0) void this.announce();
    } catch (error) {
      if (!(error instanceof MalformedMessageError)) throw error;
      const sender = senderOf(message);
      if (!this.#mayAdvise(`malformed ${sender} ${error.message}`)) return;
      this.#logger.warn('worker_not_understood', {
        worker: sender,
        reason: error.message,
        next: 'this worker is not counted as live; it must announce what the protocol requires',
      });
    }
  }

  #onBeat(beat: WorkerBeat): void {
    if (!this.registry.onBeat(beat)) void this.#ask();
  }

  #onAnnouncement(announcement: WorkerAnnouncement): void {
    if (this.registry.onAnnouncement(announcement)) return;
    const { descriptor } = announcement;
    if (!this.#mayAdvise(`protocol ${descriptor.instanceId}`)) return;
    const [low, high] = rangeOf(descriptor);
    this.#logger.warn('worker_incompatible', {
      worker: descriptor.instanceId,
      sdk: descriptor.sdk,
      workerSpeaks: `${low} to ${high}`,
      operatorSpeaks: PROTOCOL.range.join(' to '),
      next: `nothing is sent to it; update the ${low > PROTOCOL.range[1] ? 'operator' : 'worker'}`,
    });
    this.#lastWho = 0;
    void this.#ask(); // states our range, so that the worker can tell its own log
  }

  async #ask(): Promise<void> {
    const now = Date.now();
    if (now - this.#lastWho < ASK_AT_MOST_EVERY_MS) return;
    this.#lastWho = now;
    await this.#publisher.broadcast(
      this.#names.workers,
      { type: 'who', value: { from: this.#instanceId, protocol: PROTOCOL } },
      { isPatient: true },
    );
  }

  async #beat(lifecycle: Lifecycle): Promise<void> {
    const beat: WorkerBeat = {
      instanceId: this.#instanceId,
      groups: this.#served.groups(),
      ts: Date.now(),
      lifecycle,
      status: this.#served.status(),
      descriptorHash: descriptorHash(this.#descriptor()),
    };
    await this.#publisher.broadcast(this.#names.workers, { type: 'worker-beat', value: beat, expiresMs: EXPIRES_MS });
  }

  #descriptor(): WorkerDescriptor {
    return {
      instanceId: this.#instanceId,
      runtime: 'node',
      sdk: SDK,
      protocol: PROTOCOL,
      capabilities: [...LEGACY_V1_CAPABILITIES],
      workflows: [],
      steps: this.#served.steps(),
      ...this.#place,
      startedAt: this.#startedAt,
    };
  }
}

export const newInstanceId = (hostname: string): string => `node-${hostname}-${process.pid}-${randomUUID().slice(0, 8)}`;

export const rssBytes = (): number => memoryUsage.rss();

function senderOf(message: AsyncMessage): string {
  const value = parsed(message) as { instanceId?: unknown; descriptor?: { instanceId?: unknown } } | undefined;
  const id = value?.instanceId ?? value?.descriptor?.instanceId;
  return typeof id === 'string' ? id : 'unnamed';
}

function parsed(message: AsyncMessage): unknown {
  try {
    return valueOf(message);
  } catch {
    return undefined;
  }
}
