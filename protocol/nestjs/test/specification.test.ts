/** The package against the specification beside it: fixtures, names, hashes. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { descriptorHash, type WorkerDescriptor } from '@dudousxd/nestjs-durable-core';
import { baseOf, Names, routingToken } from '../src/names.js';
import { problemWith } from '../src/validation.js';
import { attemptIn } from '../src/wire.js';

const FIXTURES = new URL('../../fixtures/v1/', import.meta.url);
const read = (path: string): unknown => JSON.parse(readFileSync(new URL(path, FIXTURES), 'utf8'));
const within = (path: string): string[] =>
  readdirSync(new URL(path, FIXTURES)).filter((name) => name !== 'index.json').sort();

describe('fixtures of the specification', () => {
  for (const type of within('valid/')) {
    it(`every valid ${type} is accepted`, () => {
      const files = within(`valid/${type}/`);
      const problems = files.map((file) => [file, problemWith(type, read(`valid/${type}/${file}`))]);
      assert.ok(files.length > 0);
      assert.deepEqual(problems.filter(([, problem]) => problem !== undefined), []);
    });
  }

  for (const type of within('invalid/')) {
    it(`every invalid ${type} is refused with a reason`, () => {
      const why = read(`invalid/${type}/index.json`) as Record<string, string>;
      const files = within(`invalid/${type}/`);
      assert.deepEqual(Object.keys(why).sort(), files);
      const accepted = files.filter((file) => problemWith(type, read(`invalid/${type}/${file}`)) === undefined);
      assert.deepEqual(accepted.map((file) => `${file}: ${why[file]}`), []);
    });
  }

  it('the problem of a message names the message, the place and what is missing', () => {
    assert.equal(problemWith('heartbeat', { runId: 'r', group: 'g' }), "heartbeat must have required property 'seq' (seq)");
    assert.equal(problemWith('heartbeat', { runId: 'r', group: 'g', seq: 'x' }), 'heartbeat at /seq must be integer');
    assert.equal(problemWith('gossip', {}), 'no such message type: gossip');
  });

  it("the core's hash of a descriptor as we announce it is that of the specification", () => {
    const hashes = read('descriptors/hashes.json') as Record<string, string>;
    for (const file of ['descriptor.json', 'descriptor-unsorted.json']) {
      assert.equal(descriptorHash(read(`descriptors/${file}`) as WorkerDescriptor), hashes[file]);
    }
  });
});

describe('names', () => {
  it('the prefix takes the namespace unless it is unset, empty or default', () => {
    const prefixes = [undefined, '', 'default', 'acme'].map((namespace) => new Names('durable', namespace).effectivePrefix);
    assert.deepEqual(prefixes, ['durable', 'durable', 'durable', 'durable-acme']);
  });

  it('a token has dashes for colons, keeps its dots, and takes the partition unless it is default', () => {
    assert.equal(routingToken('payments:charge'), 'payments-charge');
    assert.equal(routingToken('a:b:c.d'), 'a-b-c.d');
    assert.equal(routingToken('payments:charge', 'eu'), 'payments-charge@eu');
    assert.equal(routingToken('charge', ''), 'charge');
    assert.equal(routingToken('charge', 'default'), 'charge');
    assert.equal(baseOf('payments-charge@eu'), 'payments-charge');
    assert.equal(baseOf('payments-charge'), 'payments-charge');
  });

  it('queues and exchanges are named as the binding says', () => {
    const { tasks, ...names } = { ...new Names('durable', 'acme'), tasks: new Names('durable', 'acme').tasks('charge@eu') };
    assert.equal(tasks, 'durable-acme-tasks-charge@eu');
    assert.deepEqual(names, {
      effectivePrefix: 'durable-acme',
      results: 'durable-acme-results',
      decisions: 'durable-acme-decisions',
      stepEvents: 'durable-acme-step-events',
      startRun: 'durable-acme-start-run',
      runRequest: 'durable-acme-run-request',
      dead: 'durable-acme-dead',
      control: 'durable-acme-control',
      heartbeat: 'durable-acme-heartbeat',
      runReply: 'durable-acme-run-reply',
      workers: 'durable-acme-workers',
      tenantEvents: 'durable-acme-tenant-events',
    });
  });

  it('the attempt is the last part of a message id, if it is one', () => {
    const ids = ['run:1:3:2', 'run-1:3:17', 'run-1:3:0', 'run-1:3:', 'run-1', undefined, 'run-1:3:1e3'];
    assert.deepEqual(ids.map(attemptIn), [2, 17, undefined, undefined, undefined, undefined, undefined]);
  });
});
