export const STORE = Symbol('store');
export const RABBITMQ = Symbol('rabbitmq');
export const DEAD_LETTERS = Symbol('dead letters');
