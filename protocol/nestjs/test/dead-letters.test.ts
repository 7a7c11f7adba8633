/** Messages that nobody understands, or that the broker gave up on. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StartRunMessage, StepResult, WorkflowDecision } from '@dudousxd/nestjs-durable-core';
import { eventually, Inbox, stepTask } from '../src/conformance/bench.js';
import type { DeadLetter, RabbitMQTransport } from '../src/index.js';
import { inLab, type Lab } from './rabbitmq.js';

interface Operator {
  transport: RabbitMQTransport;
  results: Inbox<StepResult>;
  decisions: Inbox<WorkflowDecision>;
  letters: Inbox<DeadLetter>;
}

async function operatorIn(lab: Lab, options: object = {}): Promise<Operator> {
  const letters = new Inbox<DeadLetter>();
  const transport = lab.open({ onDeadLetter: letters.take, ...options });
  const results = new Inbox<StepResult>();
  const decisions = new Inbox<WorkflowDecision>();
  transport.onResult(results.take);
  transport.onDecision(decisions.take);
  await transport.ready();
  return { transport, results, decisions, letters };
}

const poison = (reason: string) => ({ message: `poison message: ${reason}`, code: 'poison', retryable: false });

describe('messages that cannot be understood', () => {
  it('a malformed result fails its step, with the reason', inLab(async (lab) => {
    const { results, letters } = await operatorIn(lab);
    await lab.publish(lab.names.results, 'step-result', { runId: 'run-1', seq: 3, stepId: 'run-1:3', status: 'done' }, { messageId: 'run-1:3:1' });
    await letters.until(1);
    const reason = 'step-result at /status must be equal to one of the allowed values';
    assert.deepEqual(results.all, [{ runId: 'run-1', seq: 3, stepId: 'run-1:3', status: 'failed', error: poison(reason) }]);
    const [letter] = letters.all as [DeadLetter];
    assert.equal(letter.reason, reason);
    assert.equal(letter.headers['durable-error'], reason);
    assert.equal(letter.type, 'step-result');
    assert.equal(letter.messageId, 'run-1:3:1');
    assert.deepEqual(JSON.parse(letter.body.toString()), { runId: 'run-1', seq: 3, stepId: 'run-1:3', status: 'done' });
  }));

  it('a malformed decision fails its turn', inLab(async (lab) => {
    const { decisions } = await operatorIn(lab);
    const bad = { taskId: 't-1', runId: 'run-1', status: 'continue', commands: [{ kind: 'teleport', seq: 0 }] };
    await lab.publish(lab.names.decisions, 'workflow-decision', bad);
    const [decision] = await decisions.until(1);
    const { error, ...rest } = decision as WorkflowDecision;
    assert.deepEqual(rest, { taskId: 't-1', runId: 'run-1', status: 'failed', commands: [] });
    assert.equal(error?.code, 'poison');
    assert.match(String(error?.message), /^poison message: workflow-decision at \/commands\/0/);
  }));

  it('a malformed task fails its step when a worker meets it', inLab(async (lab) => {
    const { transport, results } = await operatorIn(lab);
    transport.handle('charge', () => assert.fail('it must not run'));
    await transport.ready();
    await lab.publish(lab.names.tasks('charge'), 'step-task', { ...stepTask('charge', 'run-1'), attempt: 0 });
    const [result] = await results.until(1);
    assert.deepEqual(result?.error, poison('step-task at /attempt must be >= 1'));
  }));

  it('a turn that reaches a queue of steps fails that turn', inLab(async (lab) => {
    const { transport, decisions } = await operatorIn(lab);
    transport.handle('checkout', () => assert.fail('it must not run'));
    await transport.ready();
    await transport.dispatchWorkflowTask({
      taskId: 't-1', runId: 'run-1', workflow: 'checkout', workflowVersion: '1', input: null, history: [], group: 'checkout', attempt: 1,
    });
    const [decision] = await decisions.until(1);
    assert.deepEqual(decision?.error, poison('type "workflow-task" does not belong here; expected step-task'));
  }));

  it('a message of another major version is refused, one that states none is taken', inLab(async (lab) => {
    const { results, letters } = await operatorIn(lab);
    const result = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed' };
    await lab.publish(lab.names.results, 'step-result', result, { headers: {} });
    assert.deepEqual(await results.until(1), [result]);
    await lab.publish(lab.names.results, 'step-result', result, { headers: { 'durable-protocol': 2 } });
    await letters.until(1);
    assert.equal(letters.all[0]?.reason, 'header durable-protocol is 2, understood is 1 to 1');
    assert.deepEqual(results.all[1]?.error, poison('header durable-protocol is 2, understood is 1 to 1'));
  }));

  it('what names no step and no turn is kept, byte for byte', inLab(async (lab) => {
    const { results, decisions, letters } = await operatorIn(lab);
    const bytes = Buffer.from([0xff, 0xfe, 0x7b]);
    await lab.publish(lab.names.results, 'step-result', bytes);
    await lab.publish(lab.names.decisions, 'workflow-decision', Buffer.from('{"taskId": "t-1", '));
    await letters.until(2);
    const bodies = letters.all.map(({ body }) => body.toString('latin1')).sort();
    assert.deepEqual(bodies, ['{"taskId": "t-1", ', bytes.toString('latin1')]);
    assert.ok(letters.all.every(({ reason }) => reason.startsWith('the body is not JSON: ')));
    assert.deepEqual([results.all, decisions.all], [[], []]);
  }));

  it('a start with an id of which no other ids can be made is refused and kept', inLab(async (lab) => {
    const { transport, letters } = await operatorIn(lab);
    const starts = new Inbox<StartRunMessage>();
    transport.onStartRun(starts.take);
    await transport.ready();
    const start = { tenant: 'acme', workflow: 'w', input: null, runId: 'r'.repeat(160) };
    await transport.dispatchStartRun({ ...start, runId: `${start.runId}!` });
    await transport.dispatchStartRun({ ...start, tenant: 'ü'.repeat(81) });
    await transport.dispatchStartRun(start);
    await letters.until(2);
    assert.deepEqual(letters.all.map(({ reason }) => reason).sort(), [
      'runId has 161 bytes, at most 160 are taken',
      'tenant has 162 bytes, at most 160 are taken',
    ]);
    assert.deepEqual(await starts.until(1), [start]);
  }));

  it('a letter comes again until it has been kept', inLab(async (lab) => {
    const kept = new Inbox<string>();
    let refusals = 0;
    await operatorIn(lab, {
      onDeadLetter: async ({ reason }: DeadLetter) => {
        refusals += 1;
        if (refusals < 2) throw new Error('the disk is full');
        await kept.take(reason);
      },
    });
    await lab.publish(lab.names.dead, 'start-run', { tenant: '' }, { headers: { 'durable-error': 'made up' } });
    assert.deepEqual(await kept.until(1), ['made up']);
    assert.equal(lab.lines.of('dead_letter_not_applied').length, 1);
  }));

  it('without a keeper a letter is logged whole', inLab(async (lab) => {
    await operatorIn(lab, { onDeadLetter: undefined });
    await lab.publish(lab.names.results, 'step-result', { runId: 'run-1' }, { messageId: 'run-1:3:2' });
    await eventually('the line', () => lab.lines.of('dead_letter').length === 1);
    assert.deepEqual(lab.lines.of('dead_letter')[0], {
      level: 'error',
      event: 'dead_letter',
      fields: {
        type: 'step-result',
        messageId: 'run-1:3:2',
        attempt: 2,
        reason: "step-result must have required property 'seq' (seq)",
        verdict: 'kept',
        body: '{"runId":"run-1"}',
      },
    });
  }));

  it('a broadcast that cannot be understood is logged and forgotten', inLab(async (lab) => {
    const { transport } = await operatorIn(lab);
    const heard = new Inbox<unknown>();
    transport.onControl((message) => void heard.take(message));
    await transport.ready();
    await lab.broadcast(lab.names.control, 'control', { kind: 'cancel' });
    await lab.broadcast(lab.names.control, 'control', { kind: 'cancel', runId: 'run-1' });
    assert.deepEqual(await heard.until(1), [{ kind: 'cancel', runId: 'run-1' }]);
    assert.equal(lab.lines.of('broadcast_not_understood').length, 1);
  }));
});

describe('messages that the broker gave up on', () => {
  const given = (queue: string, resent?: string) => ({
    headers: {
      'durable-protocol': 1,
      'x-death': [{ queue, reason: 'delivery_limit', count: 1, exchange: '', 'routing-keys': [queue] }],
      ...(resent === undefined ? {} : { 'durable-resent': resent }),
    },
  });

  it('a task that nobody survives gets two second chances, then fails its step', inLab(async (lab) => {
    const { results } = await operatorIn(lab);
    const queue = lab.names.tasks('killer');
    const seen = new Inbox<unknown>();
    await lab.declare(queue);
    // Every delivery goes back, as if each worker that took it had died.
    const consumer = lab.raw.createConsumer({ queue, queueOptions: { passive: true }, qos: { prefetchCount: 1 } }, async (message) => {
      await seen.take(message.headers?.['durable-resent']);
      return 1;
    });
    try {
      await lab.publish(queue, 'step-task', stepTask('killer', 'run-1', { seq: 4, attempt: 2 }), { messageId: 'run-1:4:2' });
      const [result] = await results.until(1);
      const reason = 'it was delivered too often without being answered (step-task)';
      assert.deepEqual(result, { runId: 'run-1', seq: 4, stepId: 'run-1:4', status: 'failed', error: poison(reason) });
      assert.deepEqual([...new Set(seen.all)], [undefined, '1', '2']);
      assert.deepEqual(lab.lines.of('message_sent_again').map(({ fields }) => fields), [
        { queue, messageId: 'run-1:4:2', times: 1 },
        { queue, messageId: 'run-1:4:2', times: 2 },
      ]);
    } finally {
      await consumer.close();
    }
  }));

  it('a start on which the broker gave up starts its run after all', inLab(async (lab) => {
    const { transport } = await operatorIn(lab);
    const starts = new Inbox<StartRunMessage>();
    transport.onStartRun(starts.take);
    await transport.ready();
    const start = { tenant: 'acme', workflow: 'w', input: null, runId: 'order-1' };
    await lab.publish(lab.names.dead, 'start-run', start, { messageId: 'order-1', ...given(lab.names.startRun) });
    assert.deepEqual(await starts.until(1), [start]);
  }));

  it('a result on which the broker gave up is applied as it is', inLab(async (lab) => {
    const { results } = await operatorIn(lab);
    const result = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed', output: 'paid' };
    await lab.publish(lab.names.dead, 'step-result', result, { messageId: 'run-1:0:1', ...given(lab.names.results, '0') });
    assert.deepEqual(await results.until(1), [result]);
  }));

  it('a result is applied however often the broker gave up on it', inLab(async (lab) => {
    const { results } = await operatorIn(lab);
    const result = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed', output: 'paid' };
    await lab.publish(lab.names.dead, 'step-result', result, { messageId: 'run-1:0:1', ...given(lab.names.results, '7') });
    assert.deepEqual(await results.until(1), [result]);
  }));

  it('a request on which the broker gave up fails no step, though it names a run', inLab(async (lab) => {
    const { results, letters } = await operatorIn(lab);
    const request = { requestId: 'q', tenant: 'acme', runId: 'run-1', seq: 1, body: { kind: 'workerHealth' } };
    await lab.publish(lab.names.dead, 'run-request', request, given(lab.names.runRequest, '2'));
    await letters.until(1);
    assert.deepEqual(results.all, []);
  }));
});
