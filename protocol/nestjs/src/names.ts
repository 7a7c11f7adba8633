/** Names of queues and exchanges: protocol/README.md, "Names" and "AMQP 0-9-1 binding". */

const DEFAULT = 'default';

const isStated = (value: string | undefined): value is string =>
  value !== undefined && value !== '' && value !== DEFAULT;

/** Where tasks for a registered name go: `payments:charge` on partition `eu` is `payments-charge@eu`. */
export function routingToken(name: string, partition?: string): string {
  const token = name.replaceAll(':', '-');
  return isStated(partition) ? `${token}@${partition}` : token;
}

/** `payments-charge@eu` without its partition. */
export function baseOf(token: string): string {
  const at = token.lastIndexOf('@');
  return at === -1 ? token : token.slice(0, at);
}

export class Names {
  readonly effectivePrefix: string;
  readonly results: string;
  readonly decisions: string;
  readonly stepEvents: string;
  readonly startRun: string;
  readonly runRequest: string;
  readonly dead: string;
  readonly control: string;
  readonly heartbeat: string;
  readonly runReply: string;
  readonly workers: string;
  readonly tenantEvents: string;

  constructor(prefix: string, namespace?: string) {
    const p = isStated(namespace) ? `${prefix}-${namespace}` : prefix;
    this.effectivePrefix = p;
    this.results = `${p}-results`;
    this.decisions = `${p}-decisions`;
    this.stepEvents = `${p}-step-events`;
    this.startRun = `${p}-start-run`;
    this.runRequest = `${p}-run-request`;
    this.dead = `${p}-dead`;
    this.control = `${p}-control`;
    this.heartbeat = `${p}-heartbeat`;
    this.runReply = `${p}-run-reply`;
    this.workers = `${p}-workers`;
    this.tenantEvents = `${p}-tenant-events`;
  }

  tasks(token: string): string {
    return `${this.effectivePrefix}-tasks-${token}`;
  }
}
