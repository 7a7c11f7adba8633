/**
 * Which live reports of local steps may still be shown.
 *
 * They come by a queue of their own and may be overtaken by the decision that records the step.
 * The engine writes a report without looking at what is there: a late `running` over a recorded
 * outcome would take the step out of the run's history.
 */
import type { WorkflowDecision, WorkflowStepEvent } from '@dudousxd/nestjs-durable-core';

const REMEMBERED = 50_000;
const STALE_AFTER_MS = 30_000;

export class LiveSteps {
  readonly #recorded = new Set<string>();

  onDecision({ runId, commands }: WorkflowDecision): void {
    for (const command of commands) {
      if (command.kind !== 'recordStep') continue;
      this.#recorded.add(`${runId}:${command.seq}`);
      if (this.#recorded.size > REMEMBERED) {
        const [oldest] = this.#recorded;
        if (oldest !== undefined) this.#recorded.delete(oldest);
      }
    }
  }

  isWelcome(event: WorkflowStepEvent, isRepeated: boolean): boolean {
    const lastSign = event.finishedAt ?? event.startedAt;
    return !isRepeated && Date.now() - lastSign < STALE_AFTER_MS && !this.#recorded.has(`${event.runId}:${event.seq}`);
  }
}
