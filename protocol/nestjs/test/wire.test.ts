/** What goes over the wire, seen from beside the transport. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { AsyncMessage, SyncMessage } from 'rabbitmq-client';
import { eventually, Inbox, stepTask } from '../src/conformance/bench.js';
import { listenerOn } from '../src/topology.js';
import { problemWith } from '../src/validation.js';
import { inLab, type Lab } from './rabbitmq.js';

type Message = AsyncMessage | SyncMessage;

/** The properties that the binding fixes. */
const propertiesOf = ({ contentType, type, headers, messageId, durable, expiration }: Message) => ({
  contentType,
  type,
  headers: ownHeaders(headers),
  messageId,
  durable,
  expiration,
});

/** Without those of the broker. */
const ownHeaders = (headers: object = {}) =>
  Object.fromEntries(Object.entries(headers).filter(([key]) => !key.startsWith('x-')));

const expected = (type: string, more: object = {}) => ({
  contentType: 'application/json',
  type,
  headers: { 'durable-protocol': 1 },
  messageId: undefined,
  durable: false,
  expiration: undefined,
  ...more,
});

async function listen(lab: Lab, exchange: string, routingKey = ''): Promise<Inbox<AsyncMessage>> {
  const inbox = new Inbox<AsyncMessage>();
  const consumer = lab.raw.createConsumer(listenerOn(exchange, routingKey, lab.names), (message) => void inbox.all.push(message));
  await new Promise<void>((resolve) => consumer.once('ready', resolve));
  closing.push(() => consumer.close());
  return inbox;
}

const closing: (() => Promise<void>)[] = [];

const watched = (test: (lab: Lab) => Promise<void>) =>
  inLab(async (lab) => {
    try {
      await test(lab);
    } finally {
      await Promise.all(closing.splice(0).map((close) => close()));
    }
  });

describe('messages on work queues', () => {
  it('a step task carries its id and its attempt, and nothing beside the task', watched(async (lab) => {
    const task = stepTask('charge:card', 'run-1', { seq: 3, attempt: 2, input: { cents: 1 }, traceparent: '00-1', priority: 5 });
    await lab.open().dispatch(task);
    const message = await lab.next(lab.names.tasks('charge-card'));
    assert.deepEqual(propertiesOf(message), expected('step-task', { messageId: 'run-1:3:2', durable: true }));
    assert.deepEqual(message.body, task);
  }));

  it('a step task that is sent again says so', watched(async (lab) => {
    await lab.open().resend(stepTask('charge', 'run-1'));
    const { headers } = await lab.next(lab.names.tasks('charge'));
    assert.deepEqual(ownHeaders(headers), { 'durable-protocol': 1, 'durable-resent': '0' });
  }));

  it('a turn carries its task id', watched(async (lab) => {
    const turn = { taskId: 't-1', runId: 'run-1', workflow: 'w', workflowVersion: '1', input: null, history: [], group: 'w', attempt: 1 };
    await lab.open().dispatchWorkflowTask(turn);
    const message = await lab.next(lab.names.tasks('w'));
    assert.deepEqual(propertiesOf(message), expected('workflow-task', { messageId: 't-1', durable: true }));
    assert.deepEqual(message.body, turn);
  }));

  it('a result repeats the id of its task', watched(async (lab) => {
    const transport = lab.open();
    transport.handle('charge', () => Promise.resolve('paid'));
    await transport.dispatch(stepTask('charge', 'run-1', { seq: 3, attempt: 2 }));
    await lab.declare(lab.names.results);
    const message = await lab.next(lab.names.results);
    assert.deepEqual(propertiesOf(message), expected('step-result', { messageId: 'run-1:3:2', durable: true }));
    assert.equal(problemWith('step-result', message.body), undefined);
  }));

  it('a step event has no id', watched(async (lab) => {
    const event = { runId: 'run-1', seq: 0, name: 'local', phase: 'running', startedAt: 1 } as const;
    await lab.open().dispatchStepEvent(event);
    const message = await lab.next(lab.names.stepEvents);
    assert.deepEqual(propertiesOf(message), expected('step-event', { durable: true }));
    assert.deepEqual(message.body, event);
  }));

  it('a start carries its run id', watched(async (lab) => {
    const start = { tenant: 'acme', workflow: 'w', input: 1, runId: 'order-1' };
    await lab.open().dispatchStartRun(start);
    const message = await lab.next(lab.names.startRun);
    assert.deepEqual(propertiesOf(message), expected('start-run', { messageId: 'order-1', durable: true }));
    assert.deepEqual(message.body, start);
  }));

  it('a request carries its request id', watched(async (lab) => {
    const request = { requestId: 'q-1', tenant: 'acme', body: { kind: 'workerHealth' } } as const;
    await lab.open().dispatchRunRequest(request);
    const message = await lab.next(lab.names.runRequest);
    assert.deepEqual(propertiesOf(message), expected('run-request', { messageId: 'q-1', durable: true }));
    assert.deepEqual(message.body, request);
  }));
});

describe('broadcasts', () => {
  it('replies, control messages, heartbeats and tenant events have their properties', watched(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    const { runReply, control, heartbeat, tenantEvents } = lab.names;
    const [replies, controls, beats, events] = await Promise.all([
      listen(lab, runReply),
      listen(lab, control),
      listen(lab, heartbeat),
      listen(lab, tenantEvents, 'acme'),
    ]);
    const event = { type: 'run.started', runId: 'run-1', at: new Date(0) } as const;
    await transport.publishRunReply({ requestId: 'q-1', result: { ok: true, data: null } });
    await transport.publishControl({ kind: 'event', event, from: 'me' });
    await transport.heartbeat({ runId: 'run-1', seq: 0, group: 'g' });
    await transport.publishTenantEvent({ tenant: 'acme', event });
    const found = await Promise.all([replies, controls, beats, events].map(async (inbox) => (await inbox.until(1))[0] as AsyncMessage));
    assert.deepEqual(found.map(propertiesOf), [
      expected('run-reply', { messageId: 'q-1' }),
      expected('control'),
      expected('heartbeat'),
      expected('tenant-event'),
    ]);
    assert.deepEqual(found.map(({ routingKey }) => routingKey), ['', '', '', 'acme']);
    assert.deepEqual(found[1]?.body, { kind: 'event', event: { ...event, at: '1970-01-01T00:00:00.000Z' }, from: 'me' });
  }));

  it('a worker asks, announces, beats and says goodbye', watched(async (lab) => {
    const workers = await listen(lab, lab.names.workers);
    const transport = lab.open({ instanceId: 'worker-1', partition: 'eu' });
    transport.handle('charge:card', () => null);
    await transport.ready();
    const of = (type: string) => workers.all.filter((message) => message.type === type);
    await eventually('who, descriptor and beat', () => ['who', 'worker-descriptor', 'worker-beat'].every((type) => of(type).length > 0));
    await transport.close();
    await eventually('goodbye', () => of('worker-beat').some(({ body }) => (body as { lifecycle: string }).lifecycle === 'stopped'));
    const [who] = of('who') as [AsyncMessage];
    const announced = of('worker-descriptor').at(-1) as AsyncMessage;
    const [beat] = of('worker-beat') as [AsyncMessage];
    assert.deepEqual([who, announced, beat].map(propertiesOf), [
      expected('who'),
      expected('worker-descriptor'),
      expected('worker-beat', { expiration: '35000' }),
    ]);
    for (const message of workers.all) assert.equal(problemWith(String(message.type), message.body), undefined);
    const { groups, descriptor } = announced.body as { groups: string[]; descriptor: Record<string, unknown> };
    assert.deepEqual(groups, ['charge-card@eu']);
    const { startedAt, sdk, capabilities, ...rest } = descriptor;
    assert.deepEqual([typeof startedAt, typeof sdk, Array.isArray(capabilities)], ['number', 'object', true]);
    assert.deepEqual(rest, {
      instanceId: 'worker-1',
      runtime: 'node',
      protocol: { version: 1, range: [1, 1] },
      workflows: [],
      steps: ['charge:card'],
      partition: 'eu',
    });
  }));
});

describe('declarations', () => {
  it('queues are declared with exactly the arguments of the binding', watched(async (lab) => {
    const transport = lab.open();
    transport.onResult(async () => undefined);
    transport.onDecision(async () => undefined);
    transport.onStepEvent(async () => undefined);
    transport.onStartRun(async () => undefined);
    transport.onRunRequest(async () => undefined);
    transport.handle('charge', () => null);
    await transport.ready();
    const p = lab.prefix;
    for (const queue of ['results', 'decisions', 'step-events', 'start-run', 'run-request', 'tasks-charge']) {
      // The broker refuses a declaration that differs from what is there.
      await lab.raw.queueDeclare({ queue: `${p}-${queue}`, passive: true });
      await lab.raw.queueDeclare({
        queue: `${p}-${queue}`,
        durable: true,
        exclusive: false,
        autoDelete: false,
        arguments: {
          'x-queue-type': 'quorum',
          'x-delivery-limit': 10,
          'x-overflow': 'reject-publish',
          'x-dead-letter-exchange': '',
          'x-dead-letter-routing-key': `${p}-dead`,
          'x-dead-letter-strategy': 'at-least-once',
        },
      });
    }
    await lab.raw.queueDeclare({ queue: `${p}-dead`, passive: true });
    await lab.raw.queueDeclare({ queue: `${p}-dead`, durable: true, arguments: { 'x-queue-type': 'quorum' } });
  }));

  it('exchanges are durable, fanout but for the topic of tenant events', watched(async (lab) => {
    const transport = lab.open();
    await transport.ready();
    for (const exchange of ['control', 'heartbeat', 'run-reply', 'workers']) {
      await lab.raw.exchangeDeclare({ exchange: `${lab.prefix}-${exchange}`, type: 'fanout', durable: true });
    }
    await lab.raw.exchangeDeclare({ exchange: `${lab.prefix}-tenant-events`, type: 'topic', durable: true });
  }));

  it('a listener has a queue of its own, classic, short and gone with it', watched(async (lab) => {
    const { queue, queueOptions, queueBindings, noAck } = listenerOn(lab.names.tenantEvents, 'acme', lab.names);
    assert.deepEqual(
      { queue, queueOptions, queueBindings, noAck },
      {
        queue: '',
        queueOptions: {
          exclusive: true,
          autoDelete: true,
          durable: false,
          arguments: { 'x-queue-type': 'classic', 'x-max-length': 10_000 },
        },
        queueBindings: [{ exchange: lab.names.tenantEvents, routingKey: 'acme' }],
        noAck: true,
      },
    );
  }));
});
