import { MikroOrmStateStore } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { MikroORM } from '@mikro-orm/core';
import { Global, Module } from '@nestjs/common';
import { RabbitMQTransport } from 'nestjs-durable-transport-rabbitmq';
import { settings } from '../settings.js';
import { openDatabase, storeOn } from './database.js';
import { nestLogger } from './nest-logger.js';

const database = { provide: MikroORM, useFactory: () => openDatabase(settings.database) };

const store = { provide: MikroOrmStateStore, inject: [MikroORM], useFactory: storeOn };

const transport = {
  provide: RabbitMQTransport,
  inject: [MikroOrmStateStore],
  useFactory: (store: MikroOrmStateStore) =>
    new RabbitMQTransport({
      url: settings.amqpUrl,
      prefix: settings.prefix,
      store,
      autoStart: false, // Operator.begin starts it, once every workflow is registered.
      logger: nestLogger('RabbitMQ'),
    }),
};

/** What the operator stands on: its database and its broker. */
@Global()
@Module({ providers: [database, store, transport], exports: [database, store, transport] })
export class InfrastructureModule {}
