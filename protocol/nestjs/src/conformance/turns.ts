import assert from 'node:assert/strict';
import type { WorkflowDecision, WorkflowStepEvent, WorkflowTask } from '@dudousxd/nestjs-durable-core';
import { Inbox, method, need } from './bench.js';
import type { Case } from './case.js';

const TURN: WorkflowTask = {
  taskId: 'run-1:wf:1',
  runId: 'run-1',
  workflow: 'order:checkout',
  workflowVersion: '3',
  input: { order: 'Ø-1' },
  history: [
    { seq: 0, kind: 'call', name: 'reserve', output: [1, 2] },
    { seq: 1, kind: 'call', name: 'charge', error: { message: 'declined', code: 'declined', retryable: false } },
    { seq: 2, kind: 'timer', name: 'sleep:2' },
  ],
  pendingSignals: [{ seq: 3, signal: 'approved', payload: { by: 'ana' } }],
  group: 'order-checkout',
  attempt: 1,
};

const decisionOn = (task: WorkflowTask): WorkflowDecision => ({
  taskId: task.taskId,
  runId: task.runId,
  status: 'continue',
  commands: [
    { kind: 'recordStep', seq: 4, name: 'sideEffect', output: 4 },
    { kind: 'call', seq: 5, name: 'ship', group: 'default', input: { order: 'Ø-1' } },
    { kind: 'sleep', seq: 6, ms: 60_000 },
    { kind: 'waitSignal', seq: 7, signal: 'delivered' },
    { kind: 'startChild', seq: 8, workflow: 'invoice', input: null },
  ],
});

export const TURNS: readonly Case[] = [
  {
    name: 'a turn reaches the worker of its workflow, and the decision comes back whole',
    async run(bench) {
      const onDecision = method(bench.operator, 'onDecision');
      const dispatch = method(bench.operator, 'dispatchWorkflowTask');
      const serve = need(bench.serveWorkflow, 'the bench serves no workflow').bind(bench);
      const decisions = new Inbox<WorkflowDecision>();
      const turns = new Inbox<WorkflowTask>();
      onDecision(decisions.take);
      await serve('order:checkout', (task) => {
        turns.all.push(task);
        return decisionOn(task);
      });
      await bench.operator.ready?.();
      await dispatch(TURN);
      await decisions.until(1);
      assert.deepEqual(turns.all, [TURN]);
      assert.deepEqual(decisions.all, [decisionOn(TURN)]);
    },
  },
  {
    name: 'a decision handler that rejects is called again',
    async run(bench) {
      need(bench.redelivers, 'the bench does not state that rejected messages come again');
      const onDecision = method(bench.operator, 'onDecision');
      const dispatch = method(bench.operator, 'dispatchWorkflowTask');
      const serve = need(bench.serveWorkflow, 'the bench serves no workflow').bind(bench);
      const seen = new Inbox<string>();
      onDecision(async ({ taskId }) => {
        await seen.take(taskId);
        if (seen.all.length < 3) throw new Error('the database is away');
      });
      await serve('order:checkout', decisionOn);
      await bench.operator.ready?.();
      await dispatch(TURN);
      assert.deepEqual(await seen.until(3), [TURN.taskId, TURN.taskId, TURN.taskId]);
    },
  },
  {
    name: 'step events of a run arrive in order',
    async run(bench) {
      const onStepEvent = method(bench.operator, 'onStepEvent');
      const sender = (await bench.openOperator?.()) ?? bench.operator;
      const send = method(sender, 'dispatchStepEvent');
      const seen = new Inbox<WorkflowStepEvent>();
      onStepEvent(seen.take);
      await bench.operator.ready?.();
      const now = Date.now();
      const sent = Array.from({ length: 30 }, (_, seq): WorkflowStepEvent[] => [
        { runId: 'run-1', seq, name: 'local', phase: 'running', startedAt: now },
        { runId: 'run-1', seq, name: 'local', phase: 'completed', startedAt: now, finishedAt: now + seq, output: seq },
      ]).flat();
      for (const event of sent) await send(event);
      assert.deepEqual(await seen.until(sent.length), sent);
    },
  },
];
