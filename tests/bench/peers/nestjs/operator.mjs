/**
 * An unmodified NestJS operator, its store in memory, that starts runs of a workflow with one remote
 * step, so many at a time, and tells as JSON what they took.
 *
 * operator.mjs '{"kind": "rabbitmq" | "bullmq", "url", "prefix", "runs", "warm",
 *   "concurrency", "module"}'
 */
import 'reflect-metadata';

import { DurableModule, Workflow } from '@dudousxd/nestjs-durable';
import { InMemoryStateStore, WorkflowEngine } from '@dudousxd/nestjs-durable-core';
import { Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';

const RUN_MS = 60_000;

const { kind, url, prefix, runs, warm, concurrency, module } = JSON.parse(process.argv[2]);

class OneStep {
  run(ctx, index) {
    return ctx.step('noop', { number: index });
  }
}
Injectable()(OneStep);
Workflow({ name: 'one-step' })(OneStep);

const store = new InMemoryStateStore();
const transport = await open();
class Operator {}
Module({ imports: [DurableModule.forRoot({ store, transport })], providers: [OneStep] })(Operator);
const app = await NestFactory.createApplicationContext(Operator, { logger: ['error', 'warn'] });
const engine = app.get(WorkflowEngine);
if (kind === 'rabbitmq') {
  await transport.start();
  await transport.ready();
}

const waiting = new Map();
engine.subscribe((event) => {
  if (event.type !== 'run.completed' && event.type !== 'run.failed') return;
  const settle = waiting.get(event.runId);
  waiting.delete(event.runId);
  settle?.(event);
});

let last = 0;
await drive(warm);
const before = { at: process.hrtime.bigint(), cpu: process.cpuUsage() };
const latencies = await drive(runs);
const seconds = Number(process.hrtime.bigint() - before.at) / 1e9;
const cpu = process.cpuUsage(before.cpu);
console.log(JSON.stringify({ seconds, cpu: (cpu.user + cpu.system) / 1e6, latencies }));
await app.close();
process.exit(0);

async function open() {
  if (kind === 'bullmq') {
    const { BullMQTransport } = await import('@dudousxd/nestjs-durable-transport-bullmq');
    return new BullMQTransport({ connection: { url }, prefix });
  }
  const { RabbitMQTransport } = await import(module);
  return new RabbitMQTransport({ url, prefix, store, autoStart: false });
}

/** Milliseconds that each run took. */
async function drive(count) {
  const found = [];
  let left = count;
  const one = async () => {
    while (left-- > 0) {
      const started = performance.now();
      await run(++last);
      found.push(performance.now() - started);
    }
  };
  await Promise.all(Array.from({ length: concurrency }, one));
  return found;
}

async function run(index) {
  const runId = `${prefix}-${index}`;
  let timer;
  const ended = new Promise((resolve, reject) => {
    waiting.set(runId, resolve);
    timer = setTimeout(() => reject(new Error(`run ${runId} has not ended`)), RUN_MS);
  });
  await engine.start('one-step', index, runId);
  const event = await ended;
  clearTimeout(timer);
  const { status, output } = await store.getRun(runId);
  if (status !== 'completed' || output !== index) {
    throw new Error(`run ${runId} is ${status} with ${JSON.stringify(output)}: ${JSON.stringify(event)}`);
  }
}
