/** Signatures: the golden ones of the specification, and what a transport does that requires them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import type { StepResult, WorkflowDecision } from '@dudousxd/nestjs-durable-core';
import { eventually, Inbox, stepTask } from '../src/conformance/bench.js';
import type { DeadLetter, SigningOptions } from '../src/index.js';
import { Signatures, SIGNATURE_HEADER, type Flaw, type Place } from '../src/signing.js';
import { withReason } from '../src/consumer.js';
import { inLab, Lab, Lines } from './rabbitmq.js';

const FOLDER = new URL('../../fixtures/v1/signatures/', import.meta.url);
const golden = <T>(name: string): T => JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER), 'utf8')) as T;

interface Golden {
  about: string;
  place: Place;
  signedFor?: Place;
  type: string | null;
  messageId: string | null;
  protocol: number | null;
  headers: Record<string, string>;
  body: string;
  signature?: string;
  flaw: Flaw;
}

const KEYS = golden<SigningOptions>('keys');
const signaturesWith = (current: string) => new Signatures({ ...KEYS, current }, 'durable-dead', new Lines());

function messageOf({ type, messageId, protocol, headers, body, signature }: Golden) {
  return {
    body: Buffer.from(body, 'base64'),
    message: {
      type: type ?? undefined,
      messageId: messageId ?? undefined,
      headers: {
        ...headers,
        ...(protocol === null ? {} : { 'durable-protocol': protocol }),
        ...(signature === undefined ? {} : { [SIGNATURE_HEADER]: signature }),
      },
    },
  };
}

describe('golden signatures', () => {
  for (const each of golden<Golden[]>('signed')) {
    it(`made and taken: ${each.about}`, () => {
      const { message, body } = messageOf(each);
      assert.equal(signaturesWith('k2').flaw(message, body, each.place), undefined);
      if (each.messageId === null) return; // this transport gives every message an id
      const [, keyId] = (each.signature as string).split(':') as [string, string];
      const isMoved = each.signedFor !== undefined;
      const before = isMoved ? { ...message, headers: { 'durable-protocol': each.protocol } } : message;
      const { headers } = signaturesWith(keyId).signed(before, body, each.signedFor ?? each.place);
      assert.equal((headers as Record<string, unknown>)[SIGNATURE_HEADER], each.signature);
    });
  }

  for (const each of golden<Golden[]>('refused')) {
    it(`refused as ${each.flaw}: ${each.about}`, () => {
      const { message, body } = messageOf(each);
      assert.equal(signaturesWith('k2').flaw(message, body, each.place), each.flaw);
    });
  }

  it('a header that the broker carries as a number is not what was signed', () => {
    const [first] = golden<Golden[]>('signed') as [Golden];
    const { message, body } = messageOf(first);
    const altered = { ...message, headers: { ...message.headers, 'durable-resent': 7 } };
    assert.equal(signaturesWith('k2').flaw(altered, body, first.place), 'forged');
  });
});

const SECRET = 'c2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU';
const BAD: [string, object, string][] = [
  ['no current key', { keys: { a: Buffer.alloc(32) }, current: 'b' }, 'signing.current must be one of the ids in signing.keys'],
  ['no keys', { current: 'b' }, 'signing.current must be one of the ids in signing.keys'],
  ['a short key', { keys: { a: Buffer.alloc(31) }, current: 'a' }, 'signing key 1 has 31 bytes; it needs 32 random ones (openssl rand -base64 32)'],
  ['a key that is not base64', { keys: { a: `${SECRET}!` }, current: 'a' }, 'signing key 1 is not base64'],
  ['a key where its id belongs', { keys: { [`${SECRET}=`]: 'a' }, current: 'a' }, 'the id of signing key 1 must be 1 to 64 letters, digits, - or _'],
];

describe('signing options', () => {
  for (const [what, options, message] of BAD) {
    it(`${what} is refused, without a word of it`, () => {
      assert.throws(() => new Signatures(options as SigningOptions, 'durable-dead', new Lines()), { message });
    });
  }
});

const signing: SigningOptions = { keys: { k1: Buffer.alloc(32, 1) }, current: 'k1' };
const inSignedLab = (test: (lab: Lab) => Promise<void>) => inLab(test, undefined, signing);

async function operatorIn(lab: Lab) {
  const letters = new Inbox<DeadLetter>();
  const results = new Inbox<StepResult>();
  const decisions = new Inbox<WorkflowDecision>();
  const transport = lab.open({ onDeadLetter: letters.take });
  transport.onResult(results.take);
  transport.onDecision(decisions.take);
  await transport.ready();
  return { transport, letters, results, decisions };
}

/** Publishes as somebody would who has the right to, and no key. */
async function intrude(lab: Lab, queue: string, type: string, body: object, more: object = {}): Promise<void> {
  const publisher = lab.raw.createPublisher({ confirm: true });
  const properties = { contentType: 'application/json', type, headers: { 'durable-protocol': 1 }, ...more };
  await publisher.send({ routingKey: queue, durable: true, ...properties }, Buffer.from(JSON.stringify(body)));
  await publisher.close();
}

const RESULT = { runId: 'run-1', seq: 0, stepId: 'run-1:0', status: 'completed', output: 1.5 };

describe('a transport that requires signatures', () => {
  it('takes what is signed, and keeps what is not without failing its step', inSignedLab(async (lab) => {
    const { letters, results } = await operatorIn(lab);
    await intrude(lab, lab.names.results, 'step-result', { ...RESULT, output: 'forged' }, { messageId: 'run-1:0:1' });
    const [letter] = (await letters.until(1)) as [DeadLetter];
    assert.equal(letter.reason, `on queue '${lab.names.results}' its signature is missing`);
    await lab.publish(lab.names.results, 'step-result', RESULT, { messageId: 'run-1:0:1' });
    assert.deepEqual(await results.until(1), [RESULT]);
    assert.equal(lab.lines.of('dead_letter')[0]?.fields['verdict'], 'kept; its signature is missing');
  }));

  it('fails nothing for dead letters that nobody signed, however many they are', inSignedLab(async (lab) => {
    const { letters, results, decisions } = await operatorIn(lab);
    const death = [{ queue: lab.names.tasks('pay'), reason: 'delivery_limit', count: 1, exchange: '', 'routing-keys': [] }];
    for (let number = 0; number < 10; number += 1) {
      const stated = { 'durable-protocol': 1, 'durable-error': `made up ${number}` };
      await intrude(lab, lab.names.dead, 'step-task', stepTask('pay', 'run-1'), { messageId: `run-1:0:${number}`, headers: stated });
      await intrude(lab, lab.names.dead, 'step-task', stepTask('pay', 'run-1'), { headers: { 'x-death': death, 'durable-resent': '9' } });
      await intrude(lab, lab.names.dead, 'workflow-task', { taskId: 't-1', runId: 'run-1' }, { headers: stated });
    }
    await letters.until(30);
    assert.deepEqual([results.all, decisions.all], [[], []]);
    assert.equal(await lab.depthOf(lab.names.tasks('pay')), 0);
    assert.equal(lab.lines.of('signature_refused').length, 1);
  }));

  it('runs no task that nobody signed, or that was signed for another queue', inSignedLab(async (lab) => {
    const { transport, letters } = await operatorIn(lab);
    transport.handle('pay', () => assert.fail('it must not run'));
    await transport.ready();
    const task = stepTask('pay', 'run-1');
    await intrude(lab, lab.names.tasks('pay'), 'step-task', task);
    const properties = { type: 'step-task', messageId: 'run-1:0:1', headers: { 'durable-protocol': 1 } };
    const caught = lab.signatures?.signed(properties, Buffer.from(JSON.stringify(task)), { queue: lab.names.tasks('refund') });
    await intrude(lab, lab.names.tasks('pay'), 'step-task', task, caught);
    const reasons = (await letters.until(2)).map(({ reason }) => reason).sort();
    const where = `on queue '${lab.names.tasks('pay')}' its signature`;
    assert.deepEqual(reasons, [`${where} is missing`, `${where} was made for another queue or exchange`]);
  }));

  it('sends a caught task to no other queue than it was signed for, and fails no step for it', inSignedLab(async (lab) => {
    const { results, letters } = await operatorIn(lab);
    const [mine, other] = [lab.names.tasks('pay'), lab.names.tasks('refund')];
    await lab.declare(mine);
    await lab.declare(other);
    const body = Buffer.from(JSON.stringify(stepTask('pay', 'run-1')));
    const properties = { contentType: 'application/json', type: 'step-task', messageId: 'run-1:0:1', headers: { 'durable-protocol': 1 } };
    const signed = lab.signatures?.signed(properties, body, { queue: mine });
    const death = [{ queue: other, reason: 'delivery_limit', count: 1, exchange: '', 'routing-keys': [] }];
    const publisher = lab.raw.createPublisher({ confirm: true });
    const forged = { ...signed?.headers, 'x-death': death, 'durable-error': 'made up', 'x-first-death-reason': 'rejected' };
    await publisher.send({ ...signed, headers: forged, routingKey: lab.names.dead, durable: true }, body);
    await publisher.close();
    await eventually('it is sent again', async () => (await lab.depthOf(mine)) === 1);
    assert.equal(await lab.depthOf(other), 0);
    assert.deepEqual([results.all, letters.all], [[], []]);
    const again = await lab.next(mine);
    assert.equal(again.headers?.['durable-resent'], '1');
    assert.equal(lab.signatures?.flawIn(again as never, { queue: mine }), undefined);
  }));

  it('believes a peer that has signed its letter', inSignedLab(async (lab) => {
    const { results } = await operatorIn(lab);
    const reason = 'input is not what it should be';
    const [properties, body] = withReason({ ...stepTaskMessage(), headers: { 'durable-protocol': 1 } } as never, reason);
    await lab.publish(lab.names.dead, 'step-task', body, properties);
    const [result] = await results.until(1);
    assert.equal(result?.error?.message, `poison message: ${reason}`);
  }));

  it('drops broadcasts that nobody signed, and tells of the first', inSignedLab(async (lab) => {
    const { transport } = await operatorIn(lab);
    const heard = new Inbox<unknown>();
    transport.onControl((message) => void heard.take(message));
    await transport.ready();
    const publisher = lab.raw.createPublisher({ confirm: true });
    for (let number = 0; number < 3; number += 1) {
      await publisher.send({ exchange: lab.names.control, type: 'control', contentType: 'application/json' }, { kind: 'cancel', runId: 'forged' });
    }
    await publisher.close();
    await lab.broadcast(lab.names.control, 'control', { kind: 'cancel', runId: 'run-1' });
    assert.deepEqual(await heard.until(1), [{ kind: 'cancel', runId: 'run-1' }]);
    assert.equal(lab.lines.of('signature_refused').filter(({ fields }) => fields['place'] === `${lab.names.control}/`).length, 1);
  }));
});

describe('a transport that does not require signatures yet', () => {
  it('takes what has none, tells of it, and signs what it sends', inLab(async (lab) => {
    const letters = new Inbox<DeadLetter>();
    const results = new Inbox<StepResult>();
    const transport = lab.open({ onDeadLetter: letters.take, signing: { ...signing, require: false } });
    transport.onResult(results.take);
    await transport.ready();
    await lab.publish(lab.names.results, 'step-result', RESULT);
    assert.deepEqual(await results.until(1), [RESULT]);
    assert.equal(lab.lines.of('signature_not_required_yet').length, 1);
    await transport.dispatch(stepTask('pay', 'run-1'));
    const sent = await lab.next(lab.names.tasks('pay'));
    assert.ok(Buffer.isBuffer(sent.body), 'the bytes are there to be looked at');
    const checking = new Signatures(signing, lab.names.dead, new Lines());
    assert.equal(checking.flaw(sent as never, sent.body as Buffer, { queue: lab.names.tasks('pay') }), undefined);
  }));
});

const stepTaskMessage = () => ({
  contentType: 'application/json',
  type: 'step-task',
  messageId: 'run-1:0:1',
  body: Buffer.from(JSON.stringify(stepTask('pay', 'run-1'))),
});
