import { invariant } from '#domain/invariant.ts'
import { readFile } from 'node:fs/promises'

/** Of a process of this machine; Linux tells it in a file. */
export async function residentMb(pid: number | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const [, kilobytes] = /^VmRSS:\s+(\d+) kB$/m.exec(status) ?? []
  invariant(kilobytes, `process ${pid} says how large it is`)
  return Number(kilobytes) / 1_024
}
