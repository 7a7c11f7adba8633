import { type ArgumentsHost, Catch, type ExceptionFilter } from '@nestjs/common';

interface Response {
  status(code: number): this;
  json(body: unknown): void;
}

/** Whatever the engine threw, as JSON. */
@Catch()
export class FailuresFilter implements ExceptionFilter<unknown> {
  catch(error: unknown, host: ArgumentsHost): void {
    const message = error instanceof Error ? error.message : String(error);
    host.switchToHttp().getResponse<Response>().status(500).json({ error: message });
  }
}
