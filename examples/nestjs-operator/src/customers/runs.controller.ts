import { MikroOrmStateStore } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { Controller, Get, NotFoundException, Param } from '@nestjs/common';

@Controller('runs')
export class RunsController {
  constructor(private readonly store: MikroOrmStateStore) {}

  @Get(':id')
  async show(@Param('id') id: string) {
    const run = await this.store.getRun(id);
    if (!run) throw new NotFoundException(`there is no run ${id}`);
    const steps = await this.store.listCheckpoints(id);
    return {
      id,
      workflow: run.workflow,
      status: run.status,
      output: run.output,
      error: run.error,
      steps: steps.map(({ seq, name, kind, status, attempts, output, error }) => ({
        seq, name, kind, status, attempts, output, error,
      })),
    };
  }
}
