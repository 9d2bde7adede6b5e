import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { cacheFolder, dataFolder, isRoot, makeFolder } from '#local/cache.ts'
import { useScratchFolder } from '../support/scratch.ts'

describe('the cache folder', () => {
  it('is the one named in the environment', () => {
    expect(cacheFolder({ PURSER_CACHE_DIR: '/somewhere', XDG_CACHE_HOME: '/xdg' })).toBe('/somewhere')
  })

  it.runIf(isRoot())('is a folder of the system for root, whose home is closed to others', () => {
    expect(cacheFolder({ HOME: '/root', XDG_CACHE_HOME: '/root/.cache' })).toBe('/var/cache/purser')
  })

  it.skipIf(isRoot())('is in the cache of an ordinary user', () => {
    expect(cacheFolder({ HOME: '/home/ada', XDG_CACHE_HOME: '/xdg' })).toBe('/xdg/purser')
    expect(cacheFolder({ HOME: '/home/ada' })).toBe('/home/ada/.cache/purser')
  })

  it('has a data folder for each checkout', () => {
    const env = { PURSER_CACHE_DIR: '/cache' }

    expect(dataFolder(env, '/one')).toMatch(/^\/cache\/data\/[0-9a-f]{12}$/)
    expect(dataFolder(env, '/one')).toBe(dataFolder(env, '/one/'))
    expect(dataFolder(env, '/one')).not.toBe(dataFolder(env, '/two'))
    expect(dataFolder({ ...env, PURSER_DATA_DIR: '/data' }, '/one')).toBe('/data')
  })

  it.runIf(isRoot())('can be entered by other users even under a strict umask', async () => {
    const folder = join(await useScratchFolder(), 'a', 'b')
    const before = process.umask(0o077)
    await makeFolder(folder).finally(() => process.umask(before))

    expect((await stat(folder)).mode & 0o777).toBe(0o755)
    expect((await stat(join(folder, '..'))).mode & 0o777).toBe(0o755)
  })

  it('that cannot be made is a sentence', async () => {
    await expect(makeFolder('/dev/null/purser')).rejects.toThrow(/Cannot make the folder .* PURSER_CACHE_DIR/)
  })
})
