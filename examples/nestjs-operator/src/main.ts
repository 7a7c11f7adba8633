import 'reflect-metadata';
import { NestFactory } from '@nestjs/core';
import { AppModule } from './app.module.js';
import { Console } from './durable/console.js';
import { Operator } from './durable/operator.js';
import { settings } from './settings.js';

try {
  // An open dashboard holds a stream, which must not keep the process from stopping.
  const app = await NestFactory.create(AppModule, {
    abortOnError: false,
    forceCloseConnections: true,
    logger: new Console({ logLevels: ['log', 'warn', 'error', 'fatal'] }),
  });
  app.enableShutdownHooks([], { useProcessExit: true });
  await app.listen(settings.port);
  const { port } = app.getHttpServer().address() as { port: number };
  const url = `http://localhost:${port}`;
  console.log(`\n  listening on ${url}   dashboard: ${url}/durable   process ${process.pid}\n`);
  await app.get(Operator).begin();
} catch (error) {
  console.error(`error: ${sentenceOf(error)}`);
  process.exit(1);
}

function sentenceOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') {
    return `port ${settings.port} is taken; choose another: PORT=${settings.port + 1} npm start`;
  }
  return message ?? String(error);
}
