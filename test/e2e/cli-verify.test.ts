import { generateKeyPairSync } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { anchorLinesIn } from '#calls/seal-anchor.ts'
import { startSealer } from '#calls/sealer.ts'
import { pollUntil } from '../support/poll.ts'
import { useScratchFolder } from '../support/scratch.ts'
import { createWorld } from '../support/world.ts'
import { startPurser } from './command.ts'

test('verify goes on from the state it recorded, and reads anchor and key from where it is told', async () => {
  const { database, db } = await createWorld()
  const folder = await useScratchFolder()
  const file = (name: string) => join(folder, name)
  const env = { PURSER_DATABASE_URL: database.appUrl }
  const { privateKey } = generateKeyPairSync('ed25519')
  await writeFile(file('key.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  const settings = { keyFile: file('key.pem'), anchorFile: file('anchor') }
  const sealer = await startSealer({ db, settings, complain: () => {} })
  await pollUntil(async () => (await readFile(settings.anchorFile, 'utf8')) !== '', { what: 'the anchor' })
  await sealer.stop()
  const evidence = ['--anchor', settings.anchorFile, '--public-key', settings.keyFile]
  const incremental = ['verify', '--incremental', '--state', file('state'), ...evidence]
  expect(await startPurser(incremental, { env }).ended).toMatchObject({ code: 0 })
  const again = await startPurser([...incremental, '--json'], { env }).ended
  expect(again.code).toBe(0)
  expect(JSON.parse(again.out)).toMatchObject({
    checks: expect.arrayContaining([expect.objectContaining({ name: 'journal', rows: 0 })]),
  })
  const [anchor] = anchorLinesIn(await readFile(settings.anchorFile, 'utf8'))
  await writeFile(settings.anchorFile, `${JSON.stringify({ ...anchor, hash: '0'.repeat(64) })}\n`)
  const wrong = await startPurser(['verify', ...evidence], { env }).ended
  expect(wrong).toMatchObject({ code: 1, out: expect.stringContaining('is another one than was anchored') })
  const bad = await startPurser(['verify', '--quick', '--incremental'], { env }).ended
  expect(bad).toMatchObject({ code: 2, err: expect.stringContaining('exclude each other') })
})
