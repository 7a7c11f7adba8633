import { Logger } from '@nestjs/common';

type Fields = Record<string, unknown>;

/** The transport's log lines as Nest's: `broker_connected  broker="amqp://localhost:5672"`. */
export function nestLogger(context: string) {
  const log = new Logger(context);
  const line = (event: string, fields: Fields = {}) =>
    [event, ...Object.entries(fields).map(([key, value]) => `${key}=${JSON.stringify(value)}`)].join('  ');
  return {
    debug: (event: string, fields?: Fields) => log.debug(line(event, fields)),
    info: (event: string, fields?: Fields) => log.log(line(event, fields)),
    warn: (event: string, fields?: Fields) => log.warn(line(event, fields)),
    error: (event: string, fields?: Fields) => log.error(line(event, fields)),
  };
}
