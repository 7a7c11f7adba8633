import { WorkflowService } from '@dudousxd/nestjs-durable';
import { WorkflowEngine } from '@dudousxd/nestjs-durable-core';
import {
  Body, ConflictException, Controller, HttpCode, NotFoundException, Param, Post, ServiceUnavailableException,
} from '@nestjs/common';
import { Applicant, Approval, Customer, as } from './messages.js';
import { OnboardingWorkflow } from './onboarding.workflow.js';

/** Run ids are made of the customer's: a request that is sent twice starts one run. */
@Controller()
export class CustomersController {
  constructor(
    private readonly workflows: WorkflowService,
    private readonly engine: WorkflowEngine,
  ) {}

  @Post('onboarding')
  @HttpCode(202)
  onboard(@Body(as(Applicant)) applicant: Applicant) {
    return this.workflows.start(OnboardingWorkflow, applicant, `onboarding-${applicant.id}`);
  }

  @Post('onboarding/:id/approve')
  @HttpCode(202)
  async approve(@Param('id') id: string, @Body(as(Approval)) approval: Approval) {
    const runId = `onboarding-${id}`;
    const run = await this.engine.getRun(runId);
    if (!run) throw new NotFoundException(`there is no run ${runId}`);
    if (ENDED.has(run.status)) throw new ConflictException(`the run ${runId} is ${run.status}`);
    await this.workflows.signal(`approve:${id}`, approval); // kept if the run does not wait yet
    return { runId, approvedBy: approval.by };
  }

  /** The workflow is Python: it has a name, and no class that could be imported here. */
  @Post('kyc/:id')
  @HttpCode(202)
  async review(@Param('id') id: string, @Body(as(Customer)) customer: Customer) {
    try {
      return await this.workflows.start('kyc-review', { id, ...customer }, `kyc-${id}`);
    } catch (error) {
      if (!String(error).includes('is not registered')) throw error;
      throw new ServiceUnavailableException(
        'No live worker serves the workflow kyc-review. Start one: ' +
          '.venv/bin/durable-worker run examples/nestjs-operator/worker.py:worker',
      );
    }
  }
}

const ENDED: ReadonlySet<string> = new Set(['completed', 'failed', 'cancelled', 'dead']);
