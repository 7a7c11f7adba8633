/** The message cannot go over AMQP as it is, now or later: too large, or a name that is too long. */
export class UnsendableError extends Error {
  readonly code = 'unsendable';
  override readonly name = 'UnsendableError';
}

/** A message breaks the protocol; `message` says where. */
export class MalformedMessageError extends Error {
  override readonly name = 'MalformedMessageError';
}

/** Something was asked of a transport that has been closed. */
export class TransportClosedError extends Error {
  override readonly name = 'TransportClosedError';

  constructor() {
    super('the RabbitMQ transport is closed');
  }
}

/** An option of the transport makes no sense. */
export class TransportOptionsError extends Error {
  override readonly name = 'TransportOptionsError';
}
