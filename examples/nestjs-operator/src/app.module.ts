import { DurableModule } from '@dudousxd/nestjs-durable';
import { DurableDashboardModule } from '@dudousxd/nestjs-durable-dashboard';
import { MikroOrmStateStore } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { Module } from '@nestjs/common';
import { RabbitMQTransport } from 'nestjs-durable-transport-rabbitmq';
import { Accounts } from './customers/accounts.js';
import { CustomersController } from './customers/customers.controller.js';
import { OnboardingWorkflow } from './customers/onboarding.workflow.js';
import { RunsController } from './customers/runs.controller.js';
import { InfrastructureModule } from './durable/infrastructure.module.js';
import { Operator } from './durable/operator.js';

@Module({
  imports: [
    InfrastructureModule,
    DurableModule.forRootAsync({
      inject: [MikroOrmStateStore, RabbitMQTransport],
      useFactory: (store: MikroOrmStateStore, transport: RabbitMQTransport) => ({
        store,
        transport,
        timerPollMs: 250,
        leaseMs: 10_000, // after a crash, this long until a run is taken up again
        remoteAdvanceSilenceMs: 20_000, // a Python turn that is silent for so long is sent again
        shutdownTimeoutMs: 3_000, // what runs longer goes on after the next start
      }),
    }),
    // Open to everyone who reaches the port; its `dashboardAuth` or `guards` close it.
    DurableDashboardModule.forRoot({ basePath: '/durable' }),
  ],
  controllers: [CustomersController, RunsController],
  providers: [Operator, Accounts, OnboardingWorkflow],
})
export class AppModule {}
