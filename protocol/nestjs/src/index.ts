export { MalformedMessageError, TransportClosedError, TransportOptionsError, UnsendableError } from './errors.js';
export type { Logger } from './logger.js';
export { Names, routingToken } from './names.js';
export type { DeadLetter, RabbitMQTransportOptions } from './options.js';
export type { SigningOptions } from './signing.js';
export { RunRecovery, type RunRecoveryOptions } from './recovery.js';
export { RabbitMQTransport } from './transport.js';
export type { TurnStore } from './turns.js';
