import { chmod, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Installer } from '#local/program-cache.ts'
import { findTemporalProgram, TEMPORAL_VERSION } from '#local/temporal-program.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'

/** Above every process id that a Linux kernel gives out (2^22). */
const NO_SUCH_PID = 99_999_999
const PROGRAM = '#!/bin/sh\necho temporal version 1.2.3\n'
const FOLDER = `${TEMPORAL_VERSION}-${process.platform}-${process.arch}`

describe('the Temporal program', () => {
  it('is the one on PATH when that one works', async () => {
    const bin = await useScratchFolder()
    await writeProgram(join(bin, 'temporal'), PROGRAM)
    const installer = countingInstaller()

    const found = await find({ installer, path: `${await useScratchFolder()}:${bin}` })

    expect(found).toBe(join(bin, 'temporal'))
    expect(installer.runs).toBe(0)
  })

  it('is not another program on PATH that has its name', async () => {
    const bin = await useScratchFolder()
    await writeProgram(join(bin, 'temporal'), '#!/bin/sh\necho a calendar\n')
    const cacheDir = await useScratchFolder()

    expect(await find({ cacheDir, path: bin })).toBe(join(cacheDir, 'temporal', FOLDER, 'temporal'))
  })

  it('is installed once and then comes from the cache', async () => {
    const cacheDir = await useScratchFolder()
    const installer = countingInstaller()

    const paths = [await find({ cacheDir, installer }), await find({ cacheDir, installer })]

    expect(new Set(paths).size).toBe(1)
    expect(installer.runs).toBe(1)
    expect(await readdir(join(cacheDir, 'temporal'))).toEqual([FOLDER])
    expect(await readdir(join(cacheDir, 'temporal', FOLDER))).toEqual(['stamp.json', 'temporal'])
  })

  it('is installed again when the cached one was cut short', async () => {
    const cacheDir = await useScratchFolder()
    const installer = countingInstaller()
    const program = await find({ cacheDir, installer })
    await truncate(program, 12)

    await find({ cacheDir, installer })

    expect(installer.runs).toBe(2)
    expect(await readFile(program, 'utf8')).toBe(PROGRAM)
  })

  it('is installed again when the cached one has the right size and other bytes', async () => {
    const cacheDir = await useScratchFolder()
    const installer = countingInstaller()
    const program = await find({ cacheDir, installer })
    await writeFile(program, PROGRAM.replace('1.2.3', '6.6.6'))

    await find({ cacheDir, installer })

    expect(installer.runs).toBe(2)
    expect(await readFile(program, 'utf8')).toBe(PROGRAM)
  })

  it('is installed again when the cached one is whole and does not run', async () => {
    const cacheDir = await useScratchFolder()
    const installer = countingInstaller()
    const program = await find({ cacheDir, installer })
    await chmod(program, 0o644)

    await find({ cacheDir, installer })

    expect(installer.runs).toBe(2)
  })

  it('is installed by one of two that look for it at the same time; the other waits', async () => {
    const cacheDir = await useScratchFolder()
    const installer = countingInstaller()

    const paths = await Promise.all([find({ cacheDir, installer }), find({ cacheDir, installer })])

    expect(paths[0]).toBe(paths[1])
    expect(installer.runs).toBe(1)
  })

  it('is installed over the lock and the half-made folder of a dead process', async () => {
    const cacheDir = await useScratchFolder()
    const halfMade = join(cacheDir, 'temporal', `${FOLDER}.${NO_SUCH_PID}-0123abcd.tmp`)
    await mkdir(halfMade, { recursive: true })
    await writeFile(join(cacheDir, 'temporal', `${FOLDER}.lock`), String(NO_SUCH_PID))

    await find({ cacheDir })

    expect(await readdir(join(cacheDir, 'temporal'))).toEqual([FOLDER])
  })

  it('waits for a living process that holds the lock', async () => {
    const cacheDir = await useScratchFolder()
    const lock = join(cacheDir, 'temporal', `${FOLDER}.lock`)
    await mkdir(dirname(lock), { recursive: true })
    await writeFile(lock, String(process.pid))
    const installer = countingInstaller()

    let isFound = false
    const found = find({ cacheDir, installer }).then(() => {
      isFound = true
    })
    await expect(pollUntil(() => isFound, { what: 'an early end', deadlineMs: 500 })).rejects.toThrow('an early end')
    await rm(lock)
    await found

    expect(installer.runs).toBe(1)
  })

  it('comes from the next way when one fails or makes something that does not run', async () => {
    const cacheDir = await useScratchFolder()
    const failing: Installer = { name: 'first', install: () => Promise.reject(new Error('no network')) }
    const broken: Installer = {
      name: 'second',
      install: ({ folder }) => writeProgram(join(folder, 'temporal'), 'half a prog'),
    }

    const program = await findTemporalProgram({
      env: { PATH: '' },
      cacheDir,
      installers: [failing, broken, countingInstaller()],
    })

    expect(await readFile(program, 'utf8')).toBe(PROGRAM)
  })

  it('is missing with one sentence that says what to install', async () => {
    const cacheDir = await useScratchFolder()
    const failing: Installer = { name: 'download', install: () => Promise.reject(new Error('no network')) }

    await expect(findTemporalProgram({ env: { PATH: '' }, cacheDir, installers: [failing] })).rejects.toThrow(
      /^No Temporal server could be had: install Go 1.25 or newer, .* TEMPORAL_ADDRESS .*\(download: no network\)\.$/,
    )
    expect(await readdir(join(cacheDir, 'temporal'))).toEqual([])
  })
})

interface CountingInstaller extends Installer {
  readonly runs: number
}

/** Stands for the build of minutes: it makes a small program that passes the real check. */
function countingInstaller(): CountingInstaller {
  let runs = 0
  return {
    name: 'test',
    get runs() {
      return runs
    },
    install: async ({ folder }) => {
      runs += 1
      await writeProgram(join(folder, 'temporal'), PROGRAM)
    },
  }
}

async function find(options: {
  readonly cacheDir?: string
  readonly installer?: Installer
  readonly path?: string
}): Promise<string> {
  return findTemporalProgram({
    env: { PATH: options.path ?? '' },
    cacheDir: options.cacheDir ?? (await useScratchFolder()),
    installers: [options.installer ?? countingInstaller()],
  })
}

async function writeProgram(path: string, text: string): Promise<void> {
  await writeFile(path, text, { mode: 0o755 })
}
