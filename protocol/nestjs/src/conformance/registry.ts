import assert from 'node:assert/strict';
import { eventually, method, need, stepTask } from './bench.js';
import type { Case } from './case.js';

export const REGISTRY: readonly Case[] = [
  {
    name: 'a worker is known by its groups, its descriptor and its heartbeats',
    async run(bench) {
      const groups = method(bench.operator, 'listWorkerGroups');
      const describe = method(bench.operator, 'readWorkerDescriptors');
      bench.worker.handle('charge:card', () => Promise.resolve(null));
      bench.worker.handle('refund', () => Promise.resolve(null));
      await bench.worker.ready?.();
      await bench.operator.ready?.();
      await eventually('both groups', async () => {
        const found = await groups();
        return ['charge-card', 'refund'].every((each) => found.includes(each));
      });
      const [descriptor] = await describe('charge-card');
      assert.deepEqual([...(descriptor?.steps ?? [])].sort(), ['charge:card', 'refund']);
      assert.deepEqual(await describe('unknown'), []);
    },
  },
  {
    name: 'all descriptors and all heartbeats are those of each live worker',
    async run(bench) {
      const descriptors = method(bench.operator, 'readAllWorkerDescriptors');
      const beats = method(bench.operator, 'readAllWorkerHeartbeats');
      const second = await need(bench.openWorker, 'the bench opens no second worker').call(bench);
      bench.worker.handle('charge', () => Promise.resolve(null));
      second.handle('charge', () => Promise.resolve(null));
      second.handle('refund', () => Promise.resolve(null));
      await Promise.all([bench.worker.ready?.(), second.ready?.(), bench.operator.ready?.()]);
      await eventually('two workers, three beats', async () => (await descriptors()).length === 2 && (await beats()).length === 3);
      const served = (await descriptors()).map(({ steps }) => [...steps].sort());
      assert.deepEqual(served.sort((a, b) => a.length - b.length), [['charge'], ['charge', 'refund']]);
      assert.deepEqual((await beats()).map(({ group }) => group).sort(), ['charge', 'charge', 'refund']);
      assert.ok((await beats()).every(({ lastBeatAt }) => Date.now() - lastBeatAt < 35_000));
    },
  },
  {
    name: 'the health of a group counts the tasks that wait and names the workers that live',
    async run(bench) {
      const health = method(bench.operator, 'groupHealth');
      await bench.operator.ready?.();
      bench.operator.onResult(() => Promise.resolve());
      assert.deepEqual(await health('charge'), { group: 'charge', depth: 0, liveWorkers: [] });
      for (let seq = 0; seq < 3; seq += 1) await bench.operator.dispatch(stepTask('charge', 'run-1', { seq }));
      await eventually('three waiting tasks', async () => (await health('charge')).depth === 3);
      assert.deepEqual((await health('charge')).liveWorkers, []);
      bench.worker.handle('charge', () => Promise.resolve(null));
      await bench.worker.ready?.();
      await eventually('a worker and no task', async () => {
        const { depth, liveWorkers } = await health('charge');
        return depth === 0 && liveWorkers.length === 1;
      });
    },
  },
  {
    name: 'many groups are looked up side by side, those without a queue among them',
    async run(bench) {
      const health = method(bench.operator, 'groupHealth');
      bench.operator.onResult(() => Promise.resolve());
      await bench.operator.ready?.();
      await bench.operator.dispatch(stepTask('waiting', 'run-1'));
      await eventually('the waiting task', async () => (await health('waiting')).depth === 1);
      const groups = ['absent-1', 'waiting', 'absent-2', 'waiting', 'absent-3', 'waiting'];
      const found = await Promise.all(groups.map((group) => health(group)));
      assert.deepEqual(
        found.map(({ group, depth }) => [group, depth]),
        groups.map((group) => [group, group === 'waiting' ? 1 : 0]),
      );
    },
  },
  {
    name: 'a worker that was closed is gone at once',
    async run(bench) {
      const groups = method(bench.operator, 'listWorkerGroups');
      const leaving = await need(bench.openWorker, 'the bench opens no second worker').call(bench);
      const close = method(leaving, 'close');
      bench.worker.handle('charge', () => Promise.resolve(null));
      leaving.handle('refund', () => Promise.resolve(null));
      await Promise.all([bench.worker.ready?.(), leaving.ready?.(), bench.operator.ready?.()]);
      await eventually('both groups', async () => (await groups()).length === 2);
      await close();
      await eventually('one group', async () => (await groups()).join() === 'charge', 5_000);
    },
  },
];
