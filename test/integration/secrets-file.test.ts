import { openSecretsKeyFile } from '#calls/secrets-key-file.ts'
import { startEngine } from '#calls/start-engine.ts'
import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import { secretCounts } from '#db/secret-turn.ts'
import { chmod, rm, writeFile } from 'node:fs/promises'
import { expect, onTestFinished, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { useSecretsKeyFile } from '../support/secrets.ts'
import { storeProvider } from '../support/stored-providers.ts'
import { createWorld, type World } from '../support/world.ts'

const [OLD, NEW] = [makeSecretsKey(), makeSecretsKey()]
const [oldKey, newKey] = [secretBox(OLD).keyId, secretBox(NEW).keyId]
const SOON = { deadlineMs: 40_000 }

async function useKeys(...lines: readonly string[]) {
  const file = await useSecretsKeyFile(...lines)
  const keys = await openSecretsKeyFile(file)
  if (!keys) throw new Error('there is no file')
  const complaints: string[] = []
  const complain = (sentence: string) => void complaints.push(sentence)
  const watch = keys.watch(complain)
  onTestFinished(() => watch.stop())
  return { file, keys, complaints, complain }
}

/** An engine as a process has it that was given this file. */
async function startOn(world: World, { keys, complain }: Awaited<ReturnType<typeof useKeys>>) {
  const { db, database } = world
  const stored = { secrets: keys, complain }
  const engine = await startEngine({ db, databaseUrl: database.appUrl, kind: 'test', providers: [], stored })
  onTestFinished(() => engine.stop())
  return engine
}

const encryptsWith = async ({ db }: World) =>
  (await db.selectFrom('instance').select('encrypts_with').execute()).map(({ encrypts_with: id }) => id)

test('another key takes over by what stands in the files, while the processes run', async () => {
  const world = await createWorld()
  const settings = { baseUrl: world.sandbox.url, apiKey: 'sandbox-key' }
  await storeProvider(world, secretBox(OLD), { ...settings, name: 'first' })
  await storeProvider(world, secretBox(NEW), { ...settings, name: 'second' })
  const [one, two] = [await useKeys(OLD), await useKeys(OLD)]
  const engine = await startOn(world, one)
  await startOn(world, two)
  const isKnown = (name: string) => engine.providers.get(name) !== undefined
  expect(['first', 'second'].map(isKnown)).toEqual([true, false])
  expect(one.complaints).toEqual([expect.stringContaining(`no key ${newKey} is in PURSER_SECRETS_KEY_FILE`)])

  for (const { file } of [one, two]) await writeFile(file, `${OLD}\n${NEW}\n`)
  await pollUntil(() => isKnown('second'), { what: 'what the new key encrypts is read', ...SOON })
  await writeFile(one.file, `${NEW}\n${OLD}\n`)
  await pollUntil(async () => (await encryptsWith(world)).includes(newKey), { what: 'one encrypts with it', ...SOON })
  expect(one.keys.now().keyId).toBe(newKey)
  expect(await secretCounts(world.db)).toContainEqual({ encryptedBy: oldKey, count: 1 })
  await writeFile(two.file, `${NEW}\n${OLD}\n`)
  const isUnderNew = async () => (await secretCounts(world.db)).every(({ encryptedBy }) => encryptedBy === newKey)
  await pollUntil(isUnderNew, { what: 'all is under the new key', ...SOON })
  for (const { file } of [one, two]) await writeFile(file, `${NEW}\n`)
  await pollUntil(() => [one, two].every(({ keys }) => !canRead(keys.now(), OLD)), {
    what: 'the old key is out',
    ...SOON,
  })
  expect(['first', 'second'].map(isKnown)).toEqual([true, true])
  expect([one.complaints.length, two.complaints.length]).toEqual([1, 1])
}, 120_000)

/** Whether what that key encrypts is read. */
function canRead(box: ReturnType<typeof secretBox>, key: string): boolean {
  try {
    return box.decrypt(['a'], secretBox(key).encrypt(['a'], Buffer.from('b'))).toString() === 'b'
  } catch {
    return false
  }
}

test.each([
  ['is emptied', '', 'there is no key in it'],
  ['is spoiled', `${OLD}\n${NEW.slice(0, -4)}`, 'line 2 is no key'],
  ['has one id twice', `${OLD}\n${OLD}`, 'line 2 has the id of a line above'],
])('a file that %s is refused in words, once, and what was read before stays in use', async (_what, text, fault) => {
  const { file, keys, complaints } = await useKeys(OLD)
  await writeFile(file, text)
  await pollUntil(() => complaints.length > 0, { what: 'it is said', ...SOON })
  expect(complaints[0]).toContain(fault)
  expect(complaints[0]).toContain('stay in use')
  expect(complaints[0]).not.toContain(OLD.split(':')[1])
  expect(keys.now().keyId).toBe(oldKey)
  await writeFile(file, NEW)
  await pollUntil(() => keys.now().keyId === newKey, { what: 'it is mended', ...SOON })
  expect(complaints).toHaveLength(1)
})

test('a file that is gone, and comes back', async () => {
  const { file, keys, complaints } = await useKeys(OLD)
  await rm(file)
  await pollUntil(() => complaints.length > 0, { what: 'it is said', ...SOON })
  expect(complaints[0]).toContain('ENOENT')
  await writeFile(file, NEW, { mode: 0o600 })
  await pollUntil(() => keys.now().keyId === newKey, { what: 'it is read again', ...SOON })
  expect(complaints).toHaveLength(1)
})

test.each([
  [0o604, 1],
  [0o644, 1],
  [0o620, 1],
  [0o640, 0],
  [0o400, 0],
])('of a file with the mode %o it is said once that others may read or write it, or not', async (mode, times) => {
  const { file, complaints } = await useKeys(OLD)
  await chmod(file, mode)
  const watched = await openSecretsKeyFile(file)
  const heard: string[] = []
  const watch = watched?.watch((sentence) => void heard.push(sentence))
  await watch?.stop()
  expect(heard).toHaveLength(times)
  for (const sentence of [...heard, ...complaints]) expect(sentence).toContain('chmod 600')
})
