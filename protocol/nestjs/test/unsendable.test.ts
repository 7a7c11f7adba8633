/** What AMQP cannot carry fails on its own; the transport goes on. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { StepResult, WorkflowDecision } from '@dudousxd/nestjs-durable-core';
import { Inbox, stepTask } from '../src/conformance/bench.js';
import { UnsendableError } from '../src/index.js';
import { inLab } from './rabbitmq.js';

describe('what cannot be sent', () => {
  it('a task that is too large fails its step, and the next one runs', inLab(async (lab) => {
    const transport = lab.open({ maxMessageBytes: 1_000 });
    const results = new Inbox<StepResult>();
    transport.onResult(results.take);
    transport.handle('echo', (input) => input);
    await transport.ready();
    await transport.dispatch(stepTask('echo', 'run-1', { input: 'x'.repeat(1_000) }));
    await transport.dispatch(stepTask('echo', 'run-1', { seq: 1, input: 'small' }));
    await results.until(2);
    const [failed, ran] = results.all.sort((a, b) => a.seq - b.seq);
    const { message, ...rest } = failed?.error ?? { message: '' };
    assert.deepEqual(rest, { code: 'unsendable', retryable: false });
    assert.match(message, /^a step-task of 1\d\d\d bytes is over the limit of 1000; keep large values elsewhere and pass a reference$/);
    assert.equal(ran?.output, 'small');
  }));

  it('a result that is too large fails its step at the worker', inLab(async (lab) => {
    const operator = lab.open();
    const worker = lab.open({ maxMessageBytes: 1_000 });
    const results = new Inbox<StepResult>();
    operator.onResult(results.take);
    worker.handle('grow', () => 'x'.repeat(2_000));
    await Promise.all([operator.ready(), worker.ready()]);
    await operator.dispatch(stepTask('grow', 'run-1'));
    const [result] = await results.until(1);
    assert.equal(result?.status, 'failed');
    assert.equal(result?.error?.code, 'unsendable');
    assert.equal(result?.error?.retryable, false);
  }));

  it('a result that has no JSON form fails its step at the worker', inLab(async (lab) => {
    const transport = lab.open();
    const results = new Inbox<StepResult>();
    transport.onResult(results.take);
    transport.handle('count', () => 12n);
    await transport.ready();
    await transport.dispatch(stepTask('count', 'run-1'));
    const [result] = await results.until(1);
    assert.equal(result?.error?.code, 'unsendable');
    assert.match(String(result?.error?.message), /^a step-result has no JSON form: /);
  }));

  it('a name that is longer than AMQP carries fails its step', inLab(async (lab) => {
    const transport = lab.open();
    const results = new Inbox<StepResult>();
    transport.onResult(results.take);
    await transport.ready();
    await transport.dispatch(stepTask('ü'.repeat(128), 'run-1'));
    const [result] = await results.until(1);
    assert.equal(result?.error?.code, 'unsendable');
    assert.match(String(result?.error?.message), /^queue name test-.* bytes, AMQP carries 255$/);
  }));

  it('a turn that cannot be sent fails, and so does a run id that is too long', inLab(async (lab) => {
    const transport = lab.open();
    const decisions = new Inbox<WorkflowDecision>();
    transport.onDecision(decisions.take);
    await transport.ready();
    const taskId = 't'.repeat(256);
    await transport.dispatchWorkflowTask({
      taskId, runId: 'run-1', workflow: 'w', workflowVersion: '1', input: null, history: [], group: 'w', attempt: 1,
    });
    const [decision] = await decisions.until(1);
    assert.deepEqual(decision, {
      taskId,
      runId: 'run-1',
      status: 'failed',
      commands: [],
      error: { message: `message id ${taskId} has 256 bytes, AMQP carries 255`, code: 'unsendable', retryable: false },
    });
    const start = { tenant: 'acme', workflow: 'w', input: null, runId: 'r'.repeat(256) };
    await assert.rejects(transport.dispatchStartRun(start), UnsendableError);
  }));
});
