/** What the suite needs around a transport. */
import type {
  ControlPlane,
  Heartbeat,
  RemoteTask,
  StepHandler,
  Transport,
  WorkerDescriptor,
  WorkerHeartbeat,
  WorkflowDecision,
  WorkflowTask,
} from '@dudousxd/nestjs-durable-core';

/** The transport as an operator or a client holds it. */
export interface OperatorSide extends Transport, Partial<ControlPlane> {
  readAllWorkerDescriptors?(): Promise<WorkerDescriptor[]>;
  readAllWorkerHeartbeats?(): Promise<WorkerHeartbeat[]>;
  /** Resolves when every handler that was registered so far gets its messages. */
  ready?(): Promise<void>;
}

/** Serves steps: the transport itself, or a worker of the same protocol. */
export interface WorkerSide {
  handle(name: string, handler: StepHandler): void;
  ready?(): Promise<void>;
  close?(): Promise<void>;
}

export interface Bench {
  operator: OperatorSide;
  /** May be the same object as `operator`. */
  worker: WorkerSide;
  /** One more operator or client beside the first. */
  openOperator?(): Promise<OperatorSide>;
  /** One more worker beside the first. */
  openWorker?(): Promise<WorkerSide>;
  /** Answers the turns of a workflow from now on, as its worker would. */
  serveWorkflow?(workflow: string, decide: (task: WorkflowTask) => WorkflowDecision): Promise<void>;
  /** Sends a heartbeat, as a worker would. */
  sendHeartbeat?(beat: Heartbeat): Promise<void>;
  /** Whether a handler that rejects is called again with the same message. */
  redelivers?: boolean;
  /** Cuts all connections; the next attempt to connect succeeds. */
  interrupt?(): Promise<void>;
  /** Cuts all connections and keeps the broker out of reach until the result is called. */
  outage?(): Promise<() => Promise<void>>;
  /** Closes everything that was opened and removes what it left at the broker. */
  close(): Promise<void>;
}

/** A case cannot be held on this bench; `message` says why. */
export class Unavailable extends Error {
  override readonly name = 'Unavailable';
}

/** The value, or the reason for which the case is skipped. */
export function need<T>(value: T | undefined, reason: string): NonNullable<T> {
  if (value === undefined || value === null || value === false) throw new Unavailable(reason);
  return value;
}

/** A method of the transport, bound; or the reason for which the case is skipped. */
export function method<S extends object, K extends keyof S>(side: S, key: K): NonNullable<S[K]> {
  const found = need(side[key], `the transport has no ${String(key)}`);
  return (found as unknown as (...args: never[]) => unknown).bind(side) as unknown as NonNullable<S[K]>;
}

/** What came in, in order. */
export class Inbox<T> {
  readonly all: T[] = [];

  readonly take = async (value: T): Promise<void> => {
    this.all.push(value);
  };

  async until(count: number, withinMs?: number): Promise<T[]> {
    await eventually(() => `${count} messages, ${this.all.length} came`, () => this.all.length >= count, withinMs);
    return this.all;
  }
}

const LOOK_EVERY_MS = 10;

/** Looks until it is true; throws after the deadline. */
export async function eventually(
  what: string | (() => string),
  look: () => boolean | Promise<boolean>,
  withinMs = 20_000,
): Promise<void> {
  const deadline = Date.now() + withinMs;
  while (!(await look())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${typeof what === 'string' ? what : what()}`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

/** A promise that is resolved from outside. */
export class Gate {
  open: () => void = () => undefined;
  readonly opened = new Promise<void>((resolve) => {
    this.open = resolve;
  });
}

export function stepTask(name: string, runId: string, overrides: Partial<RemoteTask> = {}): RemoteTask {
  const seq = overrides.seq ?? 0;
  const group = name.replaceAll(':', '-');
  return { runId, seq, name, stepId: `${runId}:${seq}`, group, input: null, attempt: 1, ...overrides };
}
