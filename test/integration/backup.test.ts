import { executeCall } from '#calls/execute.ts'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { copyRunningCluster } from '../support/base-backup.ts'
import { createMigrated, useCluster } from '../support/cluster.ts'
import { beBusy, expectLife } from '../support/drill.ts'
import { QUESTION } from '../support/open-attempt.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { createWorld } from '../support/world.ts'

const TIMEOUT_MS = 180_000

test(
  'a backup taken while calls go on starts as a cluster of its own: verified, closed to the application, and its runs go on',
  async () => {
    const source = await useCluster(await useScratchFolder())
    const busy = await beBusy(await createWorld({ database: await createMigrated(source, 'purser') }))
    const other = await busy.world.openRun({ credit: 1_000_000n })
    const engine = await busy.world.startEngine()
    const target = await useScratchFolder()
    await copyRunningCluster({
      ...source,
      target: join(target, 'cluster'),
      meanwhile: async () => {
        const answer = await executeCall(engine, other.request('meanwhile', QUESTION, { model: 'research' }))
        expect(answer.kind).toBe('answered')
      },
    })
    await engine.stop()
    await busy.abandon()
    const restored = await useCluster(target)
    await expectLife(restored.database('purser'), busy)
  },
  TIMEOUT_MS,
)
