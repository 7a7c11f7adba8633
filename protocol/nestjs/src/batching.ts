/** Fewer system calls: what is written in one turn of the event loop goes out at its end, at once. */
import type { Writable } from 'node:stream';

/**
 * The client corks the socket around each message, and so asks the system to write each alone. Here
 * the first cork of a turn comes with another one that lasts until the turn is over. What is given
 * back tells whether that is so now.
 */
export function batchWrites(socket: Writable): () => boolean {
  const cork = socket.cork.bind(socket);
  let isHeld = false;
  socket.cork = () => {
    if (!isHeld) {
      isHeld = true;
      cork();
      setImmediate(() => {
        isHeld = false;
        socket.uncork();
      });
    }
    cork();
  };
  return () => isHeld;
}
