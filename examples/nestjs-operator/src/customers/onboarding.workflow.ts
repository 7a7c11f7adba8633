import { Workflow } from '@dudousxd/nestjs-durable';
import { SignalTimeoutError, type WorkflowCtx } from '@dudousxd/nestjs-durable-core';
import { Accounts, type Account } from './accounts.js';
import type { Applicant, Approval } from './messages.js';

const APPROVAL_TIMEOUT_MS = 3 * 24 * 60 * 60 * 1000;

interface Risk {
  level: 'low' | 'high';
  points: number;
  reasons: string[];
}

export type Onboarding =
  | { status: 'open'; account: Account; approvedBy: string; risk: Risk }
  | { status: 'expired'; risk: Risk };

/** Opens an account: risk score in Python, four eyes, account in TypeScript. */
@Workflow({ name: 'onboarding', version: '1' })
export class OnboardingWorkflow {
  constructor(private readonly accounts: Accounts) {}

  async run(ctx: WorkflowCtx, applicant: Applicant): Promise<Onboarding> {
    // Served by worker.py: a step's name is its address, whatever language it is written in.
    const risk = await ctx.step<Risk>('risk.score', applicant, {
      retries: 5,
      backoff: 'exp',
      backoffMs: 500,
    });
    await ctx.sleep('3s'); // lets a second application under the same name show up

    const approval = await this.approvalOf(ctx, applicant);
    if (approval === undefined) return { status: 'expired', risk };

    const account = await ctx.step(this.accounts.open, {
      customer: applicant.id,
      limit: risk.level === 'low' ? 5_000 : 500,
    });
    return { status: 'open', account, approvedBy: approval.by, risk };
  }

  private async approvalOf(ctx: WorkflowCtx, { id }: Applicant): Promise<Approval | undefined> {
    try {
      return await ctx.waitForSignal<Approval>(`approve:${id}`, { timeoutMs: APPROVAL_TIMEOUT_MS });
    } catch (error) {
      if (error instanceof SignalTimeoutError) return undefined;
      throw error; // the engine suspends a run by an exception of its own
    }
  }
}
