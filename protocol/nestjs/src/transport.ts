import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type {
  ControlMessage,
  ControlPlane,
  EngineEvent,
  GroupHealth,
  Heartbeat,
  RemoteTask,
  RunReply,
  RunRequest,
  StartRunMessage,
  StepHandler,
  StepResult,
  TenantEvent,
  Transport,
  WorkerDescriptor,
  WorkerHeartbeat,
  WorkflowDecision,
  WorkflowStepEvent,
  WorkflowTask,
} from '@dudousxd/nestjs-durable-core';
import { Broker } from './broker.js';
import { WorkConsumers, type Subscription } from './consumer.js';
import { DeadLetters } from './dead-letters.js';
import { TransportClosedError } from './errors.js';
import { Dispatcher } from './dispatcher.js';
import { Listeners } from './listeners.js';
import { LiveSteps } from './live-steps.js';
import { textOf } from './logger.js';
import { Names, routingToken } from './names.js';
import { settingsOf, type RabbitMQTransportOptions, type Settings } from './options.js';
import { newInstanceId, Presence } from './presence.js';
import { Publisher } from './publisher.js';
import { answerBeyondTheCore, Requests } from './requests.js';
import { Settling } from './settling.js';
import { Signatures } from './signing.js';
import { Steps } from './steps.js';
import { Turns } from './turns.js';
import { attemptIn, RESENT_HEADER, type MessageType } from './wire.js';

const ANSWER_PREFETCH = 200;
const REQUEST_PREFETCH = 20;
/** Outlasts a database that restarts; ten deliveries of a minute each before the broker gives up. */
const RETRY_FOR_MS = 60_000;
const LONGEST_ID_BYTES = 160;
const REGISTRY_PATIENCE_MS = 2_000;

type Handler<T> = (message: T) => Promise<void>;

/**
 * A nestjs-durable `Transport` and `ControlPlane` on RabbitMQ, version 1 of the durable protocol.
 *
 * Messages that must arrive are confirmed by the broker; `dispatch...` waits through outages and
 * only rejects after `close`. What cannot be sent at all fails its step or turn with code
 * `unsendable`. What comes in is acknowledged after its handler; a handler that rejects is called
 * again for a minute, then the message goes back to its queue.
 */
export class RabbitMQTransport implements Transport, ControlPlane {
  readonly instanceId: string;
  readonly #settings: Settings;
  readonly #names: Names;
  readonly #signatures: Signatures | undefined;
  readonly #broker: Broker;
  readonly #publisher: Publisher;
  readonly #consumers: WorkConsumers;
  readonly #presence: Presence;
  readonly #requests: Requests;
  readonly #steps: Steps;
  readonly #liveSteps = new LiveSteps();
  readonly #settling = new Settling();
  readonly #turns: Turns;
  readonly #listeners: Listeners;
  readonly #starting: (() => Promise<void>)[] = [];
  readonly #dispatcher: Dispatcher;
  #subscribed: Promise<void>[] = [];
  #isStarted = false;
  #closed: Promise<void> | undefined;
  #onResult: Handler<StepResult> | undefined;
  #onDecision: Handler<WorkflowDecision> | undefined;

  /** Throws `TransportOptionsError` for options that make no sense. Connects in the background. */
  constructor(options: RabbitMQTransportOptions) {
    this.#settings = settingsOf(options, () => newInstanceId(hostname()));
    const { url, prefix, namespace, partition, logger, concurrency, signing } = this.#settings;
    this.instanceId = this.#settings.instanceId;
    this.#names = new Names(prefix, namespace);
    this.#signatures = signing === undefined ? undefined : new Signatures(signing, this.#names.dead, logger);
    this.#turns = new Turns(this.#settings.store);
    this.#broker = new Broker(url, this.instanceId, logger);
    this.#publisher = new Publisher(this.#broker, this.#names, logger, this.#settings.maxMessageBytes, this.#signatures);
    this.#listeners = new Listeners(this.#broker, this.#names, logger, this.#signatures);
    this.#consumers = new WorkConsumers(this.#broker, this.#names, this.#publisher, logger, this.#signatures);
    this.#requests = new Requests(this.#names, this.#publisher, (handler) =>
      this.#listen<RunReply>(this.#names.runReply, '', 'run-reply', handler).isUp,
    );
    this.#steps = new Steps({
      names: this.#names,
      publisher: this.#publisher,
      consumers: this.#consumers,
      requests: this.#requests,
      logger,
      concurrency,
      tenant: partition || 'default',
    });
    const place = { ...(partition ? { partition } : {}), ...(namespace ? { namespace } : {}) };
    this.#presence = new Presence(this.#broker, this.#names, this.#publisher, logger, this.instanceId, this.#steps, place, this.#signatures);
    this.#dispatcher = new Dispatcher({
      names: this.#names,
      publisher: this.#publisher,
      presence: this.#presence,
      consumers: this.#consumers,
      settling: this.#settling,
      logger,
      onResult: (result) => this.#onResult?.(result),
      onDecision: (decision) => this.#onDecision?.(decision),
    });
    this.#listeners.add(this.#presence.listener);
    if (this.#settings.autoStart) void this.start();
  }

  // Life

  /** Begins to consume. Once is enough; a second call changes nothing. */
  async start(): Promise<void> {
    if (!this.#isStarted) {
      this.#isStarted = true;
      // Results that come before the workers are known could not go on with their runs.
      await this.#presence.settled;
      for (const subscribe of this.#starting.splice(0)) this.#subscribed.push(subscribe());
    }
    await this.ready();
  }

  /** Resolves when the broker is connected, the workers have been asked and everything consumes. */
  async ready(): Promise<void> {
    await this.#presence.settled;
    await Promise.all(this.#subscribed);
  }

  /** Stops consuming, lets running handlers end, waits for confirms, then closes the connections. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.#presence.sayGoodbye();
    await settledWithin(10_000, this.#consumers.drain().then(() => this.#publisher.drained()));
    this.#broker.beginClosing();
    await this.#broker.close([...this.#listeners.all, this.#publisher]);
  }

  #whenStarted(subscribe: () => Promise<void>): void {
    if (this.#closed !== undefined) throw new TransportClosedError();
    const begin = () => subscribe().catch((error: unknown) => {
      if (!this.#broker.isClosed) this.#settings.logger.error('not_consuming', { reason: textOf(error) });
    });
    if (this.#isStarted) this.#subscribed.push(this.#presence.settled.then(begin));
    else this.#starting.push(begin);
  }

  #consume<T>(subscription: Subscription<T>): void {
    this.#whenStarted(() => this.#consumers.subscribe(subscription));
  }

  // Tasks

  async dispatch(task: RemoteTask): Promise<void> {
    await this.#dispatcher.step(task, {});
  }

  /** Sends a task that may have been sent before, and marks it so: its worker asks before it runs. */
  async resend(task: RemoteTask): Promise<void> {
    await this.#dispatcher.step(task, { [RESENT_HEADER]: '0' });
  }

  /** Whether this attempt of this step is the one that this process sent last. */
  hasDispatched(stepId: string, attempt: number): boolean {
    return this.#dispatcher.has(stepId, attempt);
  }

  async dispatchWorkflowTask(task: WorkflowTask): Promise<void> {
    await this.#turns.send(task, (it) => this.#dispatcher.turn(it));
  }

  onResult(handler: Handler<StepResult>): void {
    this.#onResult = handler;
    this.#consume<StepResult>({
      queue: this.#names.results,
      types: ['step-result'],
      prefetch: ANSWER_PREFETCH,
      retryForMs: RETRY_FOR_MS,
      storedOf: (result) => this.#settling.stored(result),
      runOf: (result) => result.runId,
      stepOf: (result) => result.stepId,
      handle: async ({ value, messageId }) => {
        await this.#settling.settled(value.runId);
        if (!this.#dispatcher.isOutdated(value, attemptIn(messageId))) await handler(value);
      },
    });
    this.#whenStarted(() =>
      new DeadLetters({
        names: this.#names,
        publisher: this.#publisher,
        consumers: this.#consumers,
        logger: this.#settings.logger,
        verdicts: {
          onResult: (result, attempt) =>
            this.#consumers.inTurn(result.runId, async () => {
              await this.#settling.settled(result.runId);
              if (!this.#dispatcher.isOutdated(result, attempt)) await this.#onResult?.(result);
            }),
          onDecision: (decision) =>
            this.#consumers.inTurn(decision.runId, async () => {
              if (this.#onDecision !== undefined) await this.#turns.apply(decision, this.#onDecision);
            }),
        },
        signatures: this.#signatures,
        keep: this.#settings.onDeadLetter,
        pause: (ms) => this.#broker.pause(ms),
      }).consume(),
    );
  }

  onDecision(handler: Handler<WorkflowDecision>): void {
    this.#onDecision = handler;
    this.#consume<WorkflowDecision>({
      queue: this.#names.decisions,
      types: ['workflow-decision'],
      prefetch: ANSWER_PREFETCH,
      retryForMs: RETRY_FOR_MS,
      runOf: (decision) => decision.runId,
      handle: ({ value }) => {
        this.#liveSteps.onDecision(value);
        return this.#turns.apply(value, handler);
      },
    });
  }

  dispatchStepEvent(event: WorkflowStepEvent): Promise<void> {
    return this.#publisher.send(this.#names.stepEvents, { type: 'step-event', value: event });
  }

  onStepEvent(handler: Handler<WorkflowStepEvent>): void {
    this.#consume<WorkflowStepEvent>({
      queue: this.#names.stepEvents,
      types: ['step-event'],
      prefetch: ANSWER_PREFETCH,
      runOf: (event) => event.runId,
      // For display only: what cannot be shown is not worth holding up what can.
      handle: async ({ value, isRepeated }) => {
        if (!this.#liveSteps.isWelcome(value, isRepeated)) return;
        await handler(value).catch((error: unknown) => {
          this.#settings.logger.warn('step_event_not_applied', { runId: value.runId, reason: textOf(error) });
        });
      },
    });
  }

  // Steps served here

  /**
   * Serves a step. At-least-once: a task is acknowledged after its result was confirmed, and the
   * operator is asked before a task runs that another process may have answered already.
   */
  handle(name: string, handler: StepHandler, partition: string | undefined = this.#settings.partition): void {
    if (!this.#steps.register(name, handler, partition)) return;
    const token = routingToken(name, partition);
    this.#whenStarted(async () => {
      await this.#steps.consume(token);
      await this.#presence.announce();
    });
  }

  heartbeat(beat: Heartbeat): Promise<void> {
    return this.#publisher.broadcast(this.#names.heartbeat, { type: 'heartbeat', value: beat });
  }

  onHeartbeat(handler: Handler<Heartbeat>): void {
    this.#listen<Heartbeat>(this.#names.heartbeat, '', 'heartbeat', (beat) => {
      handler(beat).catch((error: unknown) => {
        this.#settings.logger.warn('heartbeat_not_applied', { runId: beat.runId, reason: textOf(error) });
      });
    });
  }

  // Control plane

  publishControl(message: ControlMessage): Promise<void> {
    this.#settling.observe(message);
    const isPatient = message.kind === 'cancel';
    return this.#publisher.broadcast(this.#names.control, { type: 'control', value: message }, { isPatient });
  }

  onControl(handler: (message: ControlMessage) => void): void {
    this.#listen<ControlMessage>(this.#names.control, '', 'control', (message) => {
      handler(message.kind === 'event' ? { ...message, event: revived(message.event) } : message);
    });
  }

  // Clients

  async dispatchStartRun(message: StartRunMessage): Promise<void> {
    // Without a run id the operator takes this one: a redelivered start must not become a second run.
    const messageId = message.runId ?? randomUUID();
    await this.#publisher.send(this.#names.startRun, { type: 'start-run', value: message, messageId });
  }

  onStartRun(handler: Handler<StartRunMessage>): void {
    this.#consume<StartRunMessage>({
      queue: this.#names.startRun,
      types: ['start-run'],
      prefetch: REQUEST_PREFETCH,
      retryForMs: RETRY_FOR_MS,
      refusalOf: ({ runId, tenant }) => longIdIn({ runId, tenant }),
      // A redelivered message must not start a second run.
      handle: ({ value, messageId }) => handler({ ...value, runId: value.runId ?? messageId }),
    });
  }

  dispatchRunRequest(request: RunRequest): Promise<void> {
    return this.#requests.send(request);
  }

  onRunRequest(handler: Handler<RunRequest>): void {
    this.#consume<RunRequest>({
      queue: this.#names.runRequest,
      types: ['run-request'],
      prefetch: REQUEST_PREFETCH,
      // The asker gives up after a while; a request is not worth repeating.
      handle: async ({ value }) => {
        const reply = await answerBeyondTheCore(value, this.#settings.onSignal);
        const answering = reply === undefined ? handler(value) : this.publishRunReply(reply);
        await answering.catch((error: unknown) => {
          this.#settings.logger.warn('request_not_answered', { requestId: value.requestId, reason: textOf(error) });
        });
      },
    });
  }

  publishRunReply(reply: RunReply): Promise<void> {
    return this.#publisher.broadcast(
      this.#names.runReply,
      { type: 'run-reply', value: reply, messageId: reply.requestId },
      { isPatient: true },
    );
  }

  onRunReply(handler: (reply: RunReply) => void): void {
    this.#listen<RunReply>(this.#names.runReply, '', 'run-reply', handler);
  }

  publishTenantEvent(event: TenantEvent): Promise<void> {
    const routingKey = event.tenant;
    return this.#publisher.broadcast(this.#names.tenantEvents, { type: 'tenant-event', value: event }, { routingKey });
  }

  onTenantEvent(tenant: string, handler: (event: TenantEvent) => void): () => void {
    if (this.#closed !== undefined) throw new TransportClosedError();
    const listener = this.#listeners.open<TenantEvent>(this.#names.tenantEvents, tenant, 'tenant-event', (message) => {
      handler({ ...message, event: revived(message.event) });
    });
    return () => this.#listeners.close(listener);
  }

  #listen<T>(
    exchange: string,
    routingKey: string,
    type: MessageType,
    handler: (value: T) => void,
  ): { isUp: Promise<void> } {
    if (this.#closed !== undefined) throw new TransportClosedError();
    const isUp = this.#listeners.isUp(this.#listeners.open<T>(exchange, routingKey, type, handler));
    this.#subscribed.push(isUp);
    return { isUp };
  }

  // Workers

  /** Tasks that wait in the queue of a group (not those that a worker holds), and who serves it. */
  async groupHealth(group: string): Promise<GroupHealth> {
    await this.#known();
    const depth = await this.#publisher.depthOf(this.#names.tasks(group));
    return { group, depth: depth?.ready ?? 0, liveWorkers: this.#presence.registry.beats(group) };
  }

  /** Whether no result and no dead letter waits to be consumed. */
  async isDrained(): Promise<boolean> {
    const queues = [this.#names.results, this.#names.dead];
    const depths = await Promise.all(queues.map((queue) => this.#publisher.depthOf(queue)));
    return depths.every((depth) => (depth?.ready ?? 0) === 0);
  }

  async listWorkerGroups(): Promise<string[]> {
    await this.#known();
    return this.#presence.registry.groups();
  }

  async readWorkerDescriptors(group: string): Promise<WorkerDescriptor[]> {
    await this.#known();
    return this.#presence.registry.descriptors(group);
  }

  async readAllWorkerDescriptors(): Promise<WorkerDescriptor[]> {
    await this.#known();
    return this.#presence.registry.descriptors();
  }

  async readAllWorkerHeartbeats(): Promise<WorkerHeartbeat[]> {
    await this.#known();
    return this.#presence.registry.beats();
  }

  /** Without a broker nobody is known; that is an answer too. */
  #known(): Promise<void> {
    return settledWithin(REGISTRY_PATIENCE_MS, this.#presence.settled);
  }
}

/** The ids of children, steps and attempts are made of these, and AMQP carries 255 bytes. */
function longIdIn(ids: Record<string, string | undefined>): string | undefined {
  for (const [key, id] of Object.entries(ids)) {
    const bytes = Buffer.byteLength(id ?? '');
    if (bytes > LONGEST_ID_BYTES) return `${key} has ${bytes} bytes, at most ${LONGEST_ID_BYTES} are taken`;
  }
  return undefined;
}

/** An event as the engine has it: JSON has no dates. */
const revived = (event: EngineEvent): EngineEvent => ({ ...event, at: new Date(event.at) });

async function settledWithin(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<void>((resolve) => (timer = setTimeout(resolve, ms)));
  await Promise.race([work, patience]);
  clearTimeout(timer);
}
