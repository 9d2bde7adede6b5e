import { join } from 'node:path'
import { Client, Connection } from '@temporalio/client'
import { describe, expect, it, onTestFinished } from 'vitest'
import { cacheFolder } from '#local/cache.ts'
import { startTemporal, type Temporal, type TemporalOptions } from '#local/temporal.ts'
import { useScratchFolder } from '../support/scratch.ts'

/** These tests kill the server: never one that somebody else runs. */
const { TEMPORAL_ADDRESS: _notOurs, ...env } = process.env

describe('the local Temporal server', () => {
  it('keeps its workflows in a file when it is killed, and starts again on the same port', async () => {
    const folder = await useScratchFolder()
    const dbFile = join(folder, 'temporal.db')
    const first = await start({ folder, dbFile })
    await withClient(first.address, (client) =>
      client.workflow.start('waiting', { workflowId: 'kept', taskQueue: 'nobody-listens' }),
    )
    await first.kill()

    const second = await start({ folder, dbFile, port: portOf(first) })

    expect(second.address).toBe(first.address)
    const kept = await withClient(second.address, (client) => client.workflow.getHandle('kept').describe())
    expect(kept.status.name).toBe('RUNNING')
  })

  it('serves its page, and nothing after it was stopped', async () => {
    const server = await start({ folder: await useScratchFolder() })

    const page = await fetch(server.uiUrl ?? '')
    await server.stop()

    expect(page.status).toBe(200)
    await expect(fetch(server.uiUrl ?? '')).rejects.toThrow('fetch failed')
  })

  it('is not started where TEMPORAL_ADDRESS names one', async () => {
    const server = await start({ folder: await useScratchFolder() })

    const given = await start({ folder: await useScratchFolder(), env: { TEMPORAL_ADDRESS: server.address } })

    expect(given).toMatchObject({ address: server.address, uiUrl: undefined, pid: undefined })
  })
})

async function start(options: Partial<TemporalOptions> & { readonly folder: string }): Promise<Temporal> {
  const { folder, ...rest } = options
  const server = await startTemporal({
    env,
    cacheDir: cacheFolder(process.env),
    logFile: join(folder, 'temporal.log'),
    ...rest,
  })
  onTestFinished(() => server.stop())
  return server
}

function portOf(server: Temporal): number {
  return Number(new URL(`http://${server.address}`).port)
}

async function withClient<Result>(address: string, use: (client: Client) => Promise<Result>): Promise<Result> {
  const connection = await Connection.connect({ address })
  try {
    return await use(new Client({ connection }))
  } finally {
    await connection.close()
  }
}
