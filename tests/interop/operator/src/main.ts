import 'reflect-metadata';

import { WorkflowEngine } from '@dudousxd/nestjs-durable-core';
import { MikroOrmStateStore } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { NestFactory } from '@nestjs/core';
import { type DeadLetter, RabbitMQTransport, RunRecovery } from 'nestjs-durable-transport-rabbitmq';

import { openDatabase } from './database.js';
import { FailuresFilter } from './failures.filter.js';
import { OperatorModule } from './operator.module.js';
import { readSettings } from './settings.js';

// A test process that dies in any way at all takes its operator along.
process.stdin.on('end', () => process.exit(1)).resume();

const settings = readSettings(process.env);
const orm = await openDatabase(settings.database);
const store = new MikroOrmStateStore(orm);
const deadLetters: DeadLetter[] = [];
const transport = new RabbitMQTransport({
  url: settings.amqpUrl,
  prefix: settings.prefix,
  ...(settings.namespace === undefined ? {} : { namespace: settings.namespace }),
  ...(settings.signing === undefined ? {} : { signing: settings.signing }),
  autoStart: false,
  store,
  onDeadLetter: (letter) => {
    deadLetters.push(letter);
    return Promise.resolve();
  },
});
const app = await NestFactory.create(
  OperatorModule.over(settings, { store, transport, deadLetters }),
  { logger: ['error', 'warn'] },
);
app.useGlobalFilters(new FailuresFilter());
await app.listen(0, '127.0.0.1');
await transport.start();
await transport.ready();
const recovery = new RunRecovery({ engine: app.get(WorkflowEngine), store, transport });
recovery.start();

process.once('SIGTERM', () => {
  recovery.stop();
  void app
    .close()
    .then(() => orm.close())
    .then(() => process.exit(0));
});

const { port } = app.getHttpServer().address() as { port: number };
process.stdout.write(`${JSON.stringify({ port })}\n`);
