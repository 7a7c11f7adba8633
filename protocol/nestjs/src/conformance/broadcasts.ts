import assert from 'node:assert/strict';
import type { ControlMessage, EngineEvent, Heartbeat, TenantEvent } from '@dudousxd/nestjs-durable-core';
import { eventually, Inbox, method, need } from './bench.js';
import type { Case } from './case.js';

const AT = new Date('2024-02-29T12:34:56.789Z');
const EVENT: EngineEvent = { type: 'run.completed', runId: 'run-1', workflow: 'checkout', output: { paid: true }, at: AT };

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

export const BROADCASTS: readonly Case[] = [
  {
    name: 'a heartbeat reaches every operator',
    async run(bench) {
      const send = need(bench.sendHeartbeat, 'the bench sends no heartbeats').bind(bench);
      const others = bench.openOperator === undefined ? [] : [await bench.openOperator()];
      const inboxes = [bench.operator, ...others].map((operator) => {
        const inbox = new Inbox<Heartbeat>();
        operator.onHeartbeat(inbox.take);
        return inbox;
      });
      await Promise.all([bench.operator, ...others].map((operator) => operator.ready?.()));
      const step: Heartbeat = { runId: 'run-1', seq: 3, stepId: 'run-1:3', group: 'charge' };
      const turn: Heartbeat = { runId: 'run-1', seq: 0, group: 'checkout' };
      await send(step);
      await send(turn);
      for (const inbox of inboxes) assert.deepEqual(await inbox.until(2), [step, turn]);
    },
  },
  {
    name: 'every instance hears a control message, the sender too, and who it is from',
    async run(bench) {
      const publish = method(bench.operator, 'publishControl');
      const operators = [bench.operator, ...(bench.openOperator === undefined ? [] : [await bench.openOperator()])];
      const inboxes = operators.map((operator) => {
        const inbox = new Inbox<ControlMessage>();
        method(operator, 'onControl')((message) => void inbox.take(message));
        return inbox;
      });
      await Promise.all(operators.map((operator) => operator.ready?.()));
      const sent: ControlMessage[] = [
        { kind: 'cancel', runId: 'run-1', from: 'operator-1' },
        { kind: 'enqueued', runId: 'run-2' },
      ];
      for (const message of sent) await publish(message);
      for (const inbox of inboxes) assert.deepEqual(plain(await inbox.until(2)), sent);
    },
  },
  {
    name: "an engine event comes whole over the control plane, and its time is usable as a date",
    async run(bench) {
      const publish = method(bench.operator, 'publishControl');
      const receiver = (await bench.openOperator?.()) ?? bench.operator;
      const inbox = new Inbox<ControlMessage>();
      method(receiver, 'onControl')((message) => void inbox.take(message));
      await receiver.ready?.();
      await bench.operator.ready?.();
      await publish({ kind: 'event', event: EVENT, from: 'operator-1' });
      const [message] = await inbox.until(1);
      assert.ok(message?.kind === 'event');
      assert.deepEqual(plain(message.event), plain(EVENT));
      assert.equal(new Date(message.event.at).getTime(), AT.getTime());
    },
  },
  {
    name: 'events of a tenant reach its followers only, until they unsubscribe',
    async run(bench) {
      const publish = method(bench.operator, 'publishTenantEvent');
      const follower = (await bench.openOperator?.()) ?? bench.operator;
      const follow = method(follower, 'onTenantEvent');
      const acme = new Inbox<TenantEvent>();
      const globex = new Inbox<TenantEvent>();
      const unsubscribe = follow('acme.eu', (event) => void acme.take(event));
      follow('globex', (event) => void globex.take(event));
      await follower.ready?.();
      await bench.operator.ready?.();
      await publish({ tenant: 'acme.eu', event: EVENT });
      await publish({ tenant: 'globex', event: EVENT });
      await acme.until(1);
      await globex.until(1);
      assert.equal(new Date((acme.all[0] as TenantEvent).event.at).getTime(), AT.getTime());
      unsubscribe();
      await eventually('silence after unsubscribing', async () => {
        const [before, heard] = [acme.all.length, globex.all.length];
        await publish({ tenant: 'acme.eu', event: EVENT });
        await publish({ tenant: 'globex', event: EVENT });
        await globex.until(heard + 1);
        return acme.all.length === before;
      });
      assert.ok(acme.all.every(({ tenant }) => tenant === 'acme.eu'));
      assert.ok(globex.all.every(({ tenant }) => tenant === 'globex'));
    },
  },
];
