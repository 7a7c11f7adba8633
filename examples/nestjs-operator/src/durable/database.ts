import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { ENTITIES, MikroOrmStateStore } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { MikroORM } from '@mikro-orm/core';
import { LibSqlDriver } from '@mikro-orm/libsql';

/** All state of all runs: one SQLite file. Another driver of MikroORM makes it PostgreSQL or MySQL. */
export async function openDatabase(file: string): Promise<MikroORM> {
  mkdirSync(dirname(file), { recursive: true });
  const orm = await MikroORM.init({ driver: LibSqlDriver, dbName: file, entities: ENTITIES });
  await orm.em.getConnection().execute('pragma journal_mode = wal');
  return orm;
}

export const storeOn = (orm: MikroORM) => new MikroOrmStateStore(orm);
