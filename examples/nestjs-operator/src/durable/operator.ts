import { WorkflowEngine } from '@dudousxd/nestjs-durable-core';
import { MikroOrmStateStore } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { Injectable, Logger, type OnModuleDestroy } from '@nestjs/common';
import { RabbitMQTransport, RunRecovery } from 'nestjs-durable-transport-rabbitmq';
import { nestLogger } from './nest-logger.js';

const PATIENCE_MS = 3_000;
const HELP =
  'still waiting for RabbitMQ; the line above says why. None here? ' +
  'docker run --rm -p 5672:5672 rabbitmq:4   or: sudo apt-get install rabbitmq-server';

/** Begins to work once the application is up, and stops before the engine drains. */
@Injectable()
export class Operator implements OnModuleDestroy {
  private readonly log = new Logger(Operator.name);
  private readonly recovery: RunRecovery;
  private isStopping = false;

  constructor(
    engine: WorkflowEngine,
    store: MikroOrmStateStore,
    private readonly transport: RabbitMQTransport,
  ) {
    this.recovery = new RunRecovery({ engine, store, transport, logger: nestLogger('RunRecovery') });
  }

  async begin(): Promise<void> {
    const reminder = setTimeout(() => this.log.warn(HELP), PATIENCE_MS);
    try {
      await this.transport.start();
      await this.transport.ready();
    } finally {
      clearTimeout(reminder);
    }
    if (this.isStopping) return;
    this.recovery.start();
    this.log.log('connected to RabbitMQ: runs go on, new ones may come');
  }

  onModuleDestroy(): void {
    this.isStopping = true;
    this.recovery.stop();
  }
}
