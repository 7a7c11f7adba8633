/** A TCP relay in front of the broker, so that a test can cut what goes through it. */
import { connect, createServer, type Server, type Socket } from 'node:net';

export class Relay {
  readonly #host: string;
  readonly #port: number;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server;
  #isOpen = true;

  private constructor(host: string, port: number) {
    this.#host = host;
    this.#port = port;
    this.#server = createServer((inner) => this.#relay(inner));
  }

  static async to(url: string): Promise<Relay> {
    const { hostname, port } = new URL(url);
    const relay = new Relay(hostname, Number(port || 5672));
    await new Promise<void>((resolve) => relay.#server.listen(0, '127.0.0.1', resolve));
    return relay;
  }

  /** The broker's URL, by way of the relay. */
  through(url: string): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the relay does not listen');
    const by = new URL(url);
    by.hostname = '127.0.0.1';
    by.port = String(address.port);
    return by.href;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  refuse(): void {
    this.#isOpen = false;
    this.cut();
  }

  accept(): void {
    this.#isOpen = true;
  }

  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #relay(inner: Socket): void {
    if (!this.#isOpen) {
      inner.destroy();
      return;
    }
    const outer = connect(this.#port, this.#host);
    for (const [from, to] of [[inner, outer], [outer, inner]] as const) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        this.#sockets.delete(from);
        to.destroy();
      });
    }
  }
}
