import {
  type RunStatus,
  type StartOptions,
  type StateStore,
  WorkflowEngine,
} from '@dudousxd/nestjs-durable-core';
import { Body, Controller, Get, HttpCode, Inject, Param, Post } from '@nestjs/common';
import type { DeadLetter, RabbitMQTransport } from 'nestjs-durable-transport-rabbitmq';

import { Recorder } from './recorder.js';
import { DEAD_LETTERS, RABBITMQ, STORE } from './tokens.js';

interface StartBody {
  workflow: string;
  input: unknown;
  runId: string;
  options?: StartOptions;
}

/** The engine over HTTP, as thin as it gets. */
@Controller()
export class ControlController {
  constructor(
    @Inject(WorkflowEngine) private readonly engine: WorkflowEngine,
    @Inject(STORE) private readonly store: StateStore,
    @Inject(RABBITMQ) private readonly transport: RabbitMQTransport,
    @Inject(DEAD_LETTERS) private readonly letters: DeadLetter[],
    @Inject(Recorder) private readonly recorder: Recorder,
  ) {}

  @Post('start')
  start(@Body() { workflow, input, runId, options }: StartBody): Promise<unknown> {
    return this.engine.start(workflow, input, runId, options);
  }

  @Get('runs')
  async runs(): Promise<{ id: string; workflow: string; status: RunStatus }[]> {
    const runs = await this.store.listRuns({ limit: 10_000 });
    return runs.map(({ id, workflow, status }) => ({ id, workflow, status }));
  }

  @Get('runs/:id')
  async run(@Param('id') id: string): Promise<unknown> {
    return {
      run: await this.store.getRun(id),
      checkpoints: await this.store.listCheckpoints(id),
    };
  }

  @Get('waiters')
  async waiters(): Promise<string[]> {
    return (await this.store.listSignalWaiters('')).map(({ token }) => token);
  }

  @Post('signal')
  async signal(@Body() { token, payload }: { token: string; payload: unknown }): Promise<unknown> {
    return { delivered: (await this.engine.signal(token, payload)) !== null };
  }

  @Post('webhook/:token')
  @HttpCode(202)
  async webhook(@Param('token') token: string, @Body() payload: unknown): Promise<unknown> {
    return { delivered: (await this.engine.signal(token, payload)) !== null };
  }

  @Post('complete-task')
  async completeTask(
    @Body() { runId, name, value }: { runId: string; name: string; value: unknown },
  ): Promise<unknown> {
    return { delivered: (await this.engine.completeTask(runId, name, value)) !== null };
  }

  @Post('fail-task')
  async failTask(
    @Body() { runId, name, error }: { runId: string; name: string; error: string },
  ): Promise<unknown> {
    return { delivered: (await this.engine.failTask(runId, name, error)) !== null };
  }

  /** From now on, runs of a workflow that Python serves start as that version. */
  @Post('remote')
  remote(@Body() { name, version }: { name: string; version: string }): unknown {
    this.engine.remote(name, { group: name, version });
    return {};
  }

  @Post('cancel')
  async cancel(@Body() { runId }: { runId: string }): Promise<unknown> {
    await this.engine.cancel(runId);
    return {};
  }

  @Get('event/:runId/:key')
  async event(@Param('runId') runId: string, @Param('key') key: string): Promise<unknown> {
    return { value: (await this.engine.getEvent(runId, key)) ?? null };
  }

  @Post('update')
  async update(
    @Body() { runId, name, arg }: { runId: string; name: string; arg: unknown },
  ): Promise<unknown> {
    return this.engine.update(runId, name, arg);
  }

  @Post('publish-event')
  async publish(
    @Body() { name, payload }: { name: string; payload: unknown },
  ): Promise<{ reached: number }> {
    return { reached: await this.engine.publishEvent(name, payload) };
  }

  @Get('health')
  health(): Promise<unknown> {
    return this.engine.workerHealth();
  }

  @Get('descriptors')
  descriptors(): Promise<unknown> {
    return this.transport.readAllWorkerDescriptors();
  }

  @Get('dead-letters')
  deadLetters(): unknown {
    return this.letters.map(({ body, ...rest }) => ({ ...rest, body: body.toString() }));
  }

  @Get('engine-events/:runId')
  engineEvents(@Param('runId') runId: string): unknown {
    return this.recorder.ofRun(runId);
  }
}
