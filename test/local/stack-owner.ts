import { spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import { onTestFinished } from 'vitest'
import { z } from 'zod'

export interface StackOwner {
  readonly pid: number
  readonly postgresPid: number
  readonly servicePid: number
}

export interface StackOwnerOptions {
  /** Path of `fixtures/stack-owner.ts`, or of a copy of it in another checkout. */
  readonly entry: string
  readonly dataDir: string
  readonly env?: NodeJS.ProcessEnv
}

/** Starts a process that owns a Postgres and a process of ours; it ends with the test at the latest. */
export async function startStackOwner(options: StackOwnerOptions): Promise<StackOwner> {
  const { entry, dataDir, env = process.env } = options
  const owner = spawn(process.execPath, [entry, dataDir], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void owner.kill('SIGKILL'))
  for await (const line of createInterface(owner.stdout)) {
    const pids = z.object({ postgresPid: z.number(), servicePid: z.number() }).parse(JSON.parse(line))
    return { ...pids, pid: z.number().parse(owner.pid) }
  }
  throw new Error('The owner ended before it had started its processes.')
}
