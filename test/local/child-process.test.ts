import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { z } from 'zod'
import { startProcess } from '#local/child-process.ts'
import { isRunning } from '#local/process-table.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { startStackOwner } from './stack-owner.ts'

const { env } = process
const STACK_OWNER = fileURLToPath(new URL('./fixtures/stack-owner.ts', import.meta.url))
const SERVICE = { name: 'service', env, entry: fileURLToPath(new URL('./fixtures/service.ts', import.meta.url)) }
const BROKEN_SERVICE = {
  name: 'broken-service',
  env,
  entry: fileURLToPath(new URL('./fixtures/broken-service.ts', import.meta.url)),
}
const SILENT_SERVICE = {
  name: 'silent-service',
  env,
  entry: fileURLToPath(new URL('./fixtures/silent-service.ts', import.meta.url)),
}

describe('a process of ours', () => {
  it('is ready when it says so, logs to its file and ends when asked', async () => {
    const folder = await useScratchFolder()
    const service = await startProcess({ ...SERVICE, logFile: join(folder, 'service.log') })
    onTestFinished(() => service.stop())
    const { address } = z.object({ address: z.object({ port: z.number() }) }).parse(service.ready)

    expect(await (await fetch(`http://127.0.0.1:${address.port}`)).text()).toBe('here')
    expect(await readFile(join(folder, 'service.log'), 'utf8')).toContain('a line before')
    await service.stop()
    expect(await service.exited).toEqual({ code: 0, signal: null })
  })

  it('shows its last lines when it ends before it is ready', async () => {
    const logFile = join(await useScratchFolder(), 'broken.log')

    await expect(startProcess({ ...BROKEN_SERVICE, logFile })).rejects.toThrow(
      /ended \(code 3\) before it was ready.*\nlooking for the catalog\nthe catalog is missing$/s,
    )
  })

  it('is ended when it is not ready in time', async () => {
    const logFile = join(await useScratchFolder(), 'silent.log')

    await expect(startProcess({ ...SILENT_SERVICE, logFile, readyTimeoutMs: 500 })).rejects.toThrow(
      /was not ready after 500 ms.*still warming up/s,
    )
  })
})

describe('processes whose owner is killed', () => {
  it('end too, even one that is stopped', { timeout: 90_000 }, async () => {
    const owner = await startStackOwner({ entry: STACK_OWNER, dataDir: await useScratchFolder() })
    process.kill(owner.servicePid, 'SIGSTOP')

    process.kill(owner.pid, 'SIGKILL')

    await pollUntil(() => !isRunning(owner.postgresPid), { what: 'Postgres ends', deadlineMs: 20_000 })
    await pollUntil(() => !isRunning(owner.servicePid), { what: 'the stopped process ends', deadlineMs: 20_000 })
  })

  it('end when the owner is told to end and does not stop them', async () => {
    const owner = await startStackOwner({ entry: STACK_OWNER, dataDir: await useScratchFolder() })

    process.kill(owner.pid, 'SIGTERM')

    await pollUntil(() => !isRunning(owner.postgresPid), { what: 'Postgres ends' })
    await pollUntil(() => !isRunning(owner.servicePid), { what: 'the process ends' })
  })
})
