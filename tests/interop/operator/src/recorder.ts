import type { EngineEvent } from '@dudousxd/nestjs-durable-core';
import { WorkflowEngine } from '@dudousxd/nestjs-durable-core';
import { Inject, Injectable, type OnModuleInit } from '@nestjs/common';

const KEPT = 20_000;

/** The engine's latest events, for the tests to look at. */
@Injectable()
export class Recorder implements OnModuleInit {
  private readonly events: EngineEvent[] = [];

  constructor(@Inject(WorkflowEngine) private readonly engine: WorkflowEngine) {}

  onModuleInit(): void {
    this.engine.subscribe((event) => {
      this.events.push(event);
      if (this.events.length > KEPT) this.events.splice(0, KEPT / 2);
    });
  }

  ofRun(runId: string): EngineEvent[] {
    return this.events.filter((event) => event.runId === runId);
  }
}
