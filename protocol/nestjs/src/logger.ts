/** Takes one constant event name and its fields per line. */
export interface Logger {
  debug(event: string, fields?: Record<string, unknown>): void;
  info(event: string, fields?: Record<string, unknown>): void;
  warn(event: string, fields?: Record<string, unknown>): void;
  error(event: string, fields?: Record<string, unknown>): void;
}

type Level = 'info' | 'warn' | 'error';

/** One JSON object a line on stderr; debug lines are dropped. */
export function stderrLogger(): Logger {
  const write = (level: Level) => (event: string, fields: Record<string, unknown> = {}) => {
    process.stderr.write(`${JSON.stringify({ at: new Date().toISOString(), level, event, ...fields })}\n`);
  };
  return { debug: () => undefined, info: write('info'), warn: write('warn'), error: write('error') };
}

export const textOf = (error: unknown): string =>
  error instanceof Error ? error.message : String(error);
