import { DurableModule } from '@dudousxd/nestjs-durable';
import type { StateStore } from '@dudousxd/nestjs-durable-core';
import { type DynamicModule, Module } from '@nestjs/common';
import type { DeadLetter, RabbitMQTransport } from 'nestjs-durable-transport-rabbitmq';

import { ControlController } from './control.controller.js';
import { Recorder } from './recorder.js';
import type { Settings } from './settings.js';
import { Steps } from './steps.js';
import { DEAD_LETTERS, RABBITMQ, STORE } from './tokens.js';
import { WORKFLOWS } from './workflows.js';

export const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

interface Parts {
  store: StateStore;
  transport: RabbitMQTransport;
  deadLetters: DeadLetter[];
}

@Module({})
export class OperatorModule {
  static over(
    settings: Settings,
    { store, transport, deadLetters }: Parts,
  ): DynamicModule {
    return {
      module: OperatorModule,
      imports: [
        DurableModule.forRoot({
          store,
          transport,
          timerPollMs: settings.timerPollMs,
          leaseMs: settings.leaseMs,
          remoteAdvanceSilenceMs: settings.silenceMs,
          traceparent: () => TRACEPARENT,
          context: () => ({ tenantId: 'acme', userRef: { type: 'user', id: '7' } }),
        }),
      ],
      controllers: [ControlController],
      providers: [
        { provide: STORE, useValue: store },
        { provide: RABBITMQ, useValue: transport },
        { provide: DEAD_LETTERS, useValue: deadLetters },
        Recorder,
        Steps,
        ...WORKFLOWS,
      ],
    };
  }
}
