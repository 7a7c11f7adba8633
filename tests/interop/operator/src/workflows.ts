import { FatalError, type StepDispatchOpts, type WorkflowCtx } from '@dudousxd/nestjs-durable-core';
import { Workflow } from '@dudousxd/nestjs-durable';
import { Inject, Injectable } from '@nestjs/common';

import { Steps } from './steps.js';

interface OneStep {
  step: string;
  input: unknown;
  options?: StepDispatchOpts;
}

interface OneChild {
  workflow: string;
  input: unknown;
}

/** Calls whatever step the test names, with whatever policy it names. */
@Injectable()
@Workflow({ name: 'ts.one-step' })
export class OneStepWorkflow {
  run(ctx: WorkflowCtx, { step, input, options }: OneStep): Promise<unknown> {
    return ctx.step(step, input, options);
  }
}

/** Runs whatever child the test names, and tells how it failed. */
@Injectable()
@Workflow({ name: 'ts.parent' })
export class ParentWorkflow {
  async run(ctx: WorkflowCtx, { workflow, input }: OneChild): Promise<unknown> {
    try {
      return { output: await ctx.child(workflow, input) };
    } catch (error) {
      if (error instanceof FatalError) return { caught: error.message, code: error.code };
      throw error;
    }
  }
}

@Injectable()
@Workflow({ name: 'ts.child' })
export class ChildWorkflow {
  constructor(@Inject(Steps) private readonly steps: Steps) {}

  async run(ctx: WorkflowCtx, value: number): Promise<number> {
    await ctx.sleep(20);
    return ctx.step(this.steps.double, value);
  }
}

@Injectable()
@Workflow({ name: 'ts.failing-child' })
export class FailingChildWorkflow {
  run(ctx: WorkflowCtx, customer: string): Promise<unknown> {
    return ctx.step('ts.refuse', customer);
  }
}

/** Steps of both languages, a timer and a child: what the kill tests run many times over. */
@Injectable()
@Workflow({ name: 'ts.mixed' })
export class MixedWorkflow {
  async run(ctx: WorkflowCtx, run: string): Promise<number[]> {
    const results: number[] = [];
    results.push(await ctx.step<number>('py.work', { run, number: 0 }));
    results.push(await ctx.step<number>('ts.work', { run, number: 1 }));
    await ctx.sleep(50);
    results.push(await ctx.step<number>('py.work', { run, number: 2 }));
    results.push(await ctx.child<number>('py.small', { run, number: 3 }));
    return results;
  }
}

@Injectable()
@Workflow({ name: 'ts.small' })
export class SmallWorkflow {
  run(ctx: WorkflowCtx, part: { run: string; number: number }): Promise<number> {
    return ctx.step<number>('ts.work', part);
  }
}

export const WORKFLOWS = [
  OneStepWorkflow,
  ParentWorkflow,
  ChildWorkflow,
  FailingChildWorkflow,
  MixedWorkflow,
  SmallWorkflow,
];
