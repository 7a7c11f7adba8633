import { ENTITIES } from '@dudousxd/nestjs-durable-store-mikro-orm';
import { MikroORM } from '@mikro-orm/core';
import { LibSqlDriver } from '@mikro-orm/libsql';

export async function openDatabase(path: string): Promise<MikroORM> {
  const orm = await MikroORM.init({ driver: LibSqlDriver, dbName: path, entities: ENTITIES });
  await orm.em.getConnection().execute('PRAGMA journal_mode = WAL');
  // Two operators may share the file.
  await orm.em.getConnection().execute('PRAGMA busy_timeout = 5000');
  await orm.em.getConnection().execute('PRAGMA synchronous = NORMAL');
  return orm;
}
