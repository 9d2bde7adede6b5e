import { chmod, readdir, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { findFreePortsBelow } from '#local/free-port.ts'
import { ensurePrograms, type ProgramSet } from '#local/program-cache.ts'
import { useScratchFolder } from '../support/scratch.ts'

const PROGRAMS = ['server', 'tool']

it('makes programs that belong together again when one of them is damaged', async () => {
  const { set, made } = await countedSet()
  await ensurePrograms(set)
  await ensurePrograms(set)
  expect(made.count).toBe(1)
  expect(await readdir(set.folder)).toEqual(['server', 'stamp.json', 'tool'])
  await truncate(join(set.folder, 'tool'), 2)
  await ensurePrograms(set)
  expect(made.count).toBe(2)
})

it('keeps none of the programs when one is missing, and says what to do', async () => {
  const { set } = await countedSet()
  const installers = [{ name: 'half a build', install: (request: Folder) => writeProgram(request.folder, 'server') }]
  await expect(ensurePrograms({ ...set, installers })).rejects.toThrow(/^Install something \(half a build: /)
  await expect(readdir(set.folder)).rejects.toThrow('ENOENT')
})

it('finds different free ports below a bound', async () => {
  const ports = await findFreePortsBelow(32_768, 9)
  expect(new Set(ports).size).toBe(9)
  expect(Math.max(...ports)).toBeLessThan(32_768)
})

interface Folder {
  readonly folder: string
}

async function countedSet(): Promise<{ readonly set: ProgramSet; readonly made: { count: number } }> {
  const made = { count: 0 }
  const install = async ({ folder }: Folder): Promise<void> => {
    made.count += 1
    for (const name of PROGRAMS) await writeProgram(folder, name)
  }
  const set: ProgramSet = {
    folder: join(await useScratchFolder(), 'set', 'v1'),
    programs: PROGRAMS,
    version: 'v1',
    env: process.env,
    installers: [{ name: 'a build', install }],
    label: 'Making two programs',
    remedy: 'Install something',
    requireWorking: async () => undefined,
  }
  return { set, made }
}

async function writeProgram(folder: string, name: string): Promise<void> {
  const path = join(folder, name)
  await writeFile(path, `#!/bin/sh\necho ${name}\n`)
  await chmod(path, 0o755)
}
