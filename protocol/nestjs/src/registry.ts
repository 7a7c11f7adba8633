/** Which workers live now and what they serve, from what they announce on the workers exchange. */
import type { RawWorkerDescriptor, WorkerDescriptor, WorkerHeartbeat, WorkerStatus } from '@dudousxd/nestjs-durable-core';
import { baseOf } from './names.js';
import { PROTOCOL } from './wire.js';

export const GONE_AFTER_MS = 35_000;

export type Lifecycle = 'up' | 'draining' | 'stopped';

export interface WorkerBeat {
  instanceId: string;
  groups: string[];
  ts: number;
  lifecycle: Lifecycle;
  status?: WorkerStatus;
  descriptorHash?: string;
}

export interface WorkerAnnouncement {
  groups: string[];
  descriptor: RawWorkerDescriptor;
}

interface LiveWorker {
  instanceId: string;
  groups: ReadonlySet<string>;
  lifecycle: Lifecycle;
  lastBeatAt: number;
  status: WorkerStatus | undefined;
  descriptor: RawWorkerDescriptor | undefined;
  descriptorHash: string | undefined;
}

export class Registry {
  readonly #now: () => number;
  readonly #workers = new Map<string, LiveWorker>();

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** False if the sender's descriptor is not known, or not the one that it has now: ask who it is. */
  onBeat(beat: WorkerBeat): boolean {
    if (beat.lifecycle === 'stopped') {
      this.#workers.delete(beat.instanceId);
      return true;
    }
    const worker = this.#worker(beat.instanceId);
    worker.groups = new Set(beat.groups);
    worker.lifecycle = beat.lifecycle;
    worker.status = beat.status ?? undefined;
    const hash = beat.descriptorHash ?? undefined;
    const isCurrent = hash === undefined || worker.descriptorHash === undefined || worker.descriptorHash === hash;
    worker.descriptorHash = hash;
    return worker.descriptor !== undefined && isCurrent;
  }

  /** False if the worker speaks no version of the protocol that this operator speaks. */
  onAnnouncement({ groups, descriptor }: WorkerAnnouncement): boolean {
    const worker = this.#worker(descriptor.instanceId);
    worker.groups = new Set(groups);
    worker.descriptor = descriptor;
    worker.descriptorHash = undefined;
    return isCompatible(descriptor);
  }

  /** Routing tokens that a live worker takes tasks for. */
  groups(): string[] {
    const groups = new Set<string>();
    for (const worker of this.#taking()) for (const group of worker.groups) groups.add(group);
    return [...groups].sort();
  }

  serves(group: string): boolean {
    return this.#taking().some((worker) => worker.groups.has(group));
  }

  /** The partitions of a name that are served while the asked one is not, as tokens. */
  alternativesTo(group: string): string[] {
    return this.groups().filter((each) => each !== group && baseOf(each) === baseOf(group));
  }

  beats(group?: string): WorkerHeartbeat[] {
    const beats: WorkerHeartbeat[] = [];
    for (const worker of this.#live()) {
      for (const each of group === undefined ? worker.groups : worker.groups.has(group) ? [group] : []) {
        beats.push({
          group: each,
          instanceId: worker.instanceId,
          lastBeatAt: worker.lastBeatAt,
          ...(worker.status === undefined ? {} : { status: worker.status }),
        });
      }
    }
    return beats;
  }

  /** As announced: an operator that knows older workers fills in what they leave out. */
  descriptors(group?: string): WorkerDescriptor[] {
    const known = this.#taking().filter((worker) => group === undefined || worker.groups.has(group));
    return known.flatMap((worker) => (worker.descriptor === undefined ? [] : [worker.descriptor as WorkerDescriptor]));
  }

  #worker(instanceId: string): LiveWorker {
    let worker = this.#workers.get(instanceId);
    if (worker === undefined) {
      worker = {
        instanceId,
        groups: new Set(),
        lifecycle: 'up',
        lastBeatAt: 0,
        status: undefined,
        descriptor: undefined,
        descriptorHash: undefined,
      };
      this.#workers.set(instanceId, worker);
    }
    worker.lastBeatAt = this.#now();
    return worker;
  }

  #live(): LiveWorker[] {
    const oldest = this.#now() - GONE_AFTER_MS;
    for (const worker of this.#workers.values()) {
      if (worker.lastBeatAt < oldest) this.#workers.delete(worker.instanceId);
    }
    return [...this.#workers.values()];
  }

  #taking(): LiveWorker[] {
    return this.#live().filter((worker) => worker.lifecycle === 'up');
  }
}

export const rangeOf = (descriptor: RawWorkerDescriptor): [number, number] => descriptor.protocol?.range ?? [1, 1];

function isCompatible(descriptor: RawWorkerDescriptor): boolean {
  const [low, high] = rangeOf(descriptor);
  return low <= PROTOCOL.range[1] && high >= PROTOCOL.range[0];
}
