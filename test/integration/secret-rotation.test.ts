import { providerVersions } from '#db/provider.ts'
import { makeSecretsKey, secretBox, type SecretBox } from '#db/secret-box.ts'
import { encryptAgain, secretCounts } from '#db/secret-turn.ts'
import { createWebhook, webhookSecretPlace } from '#db/webhook.ts'
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { pollUntil } from '../support/poll.ts'
import { startKeyedEngine, storeProvider } from '../support/stored-providers.ts'
import { createWorld, type World } from '../support/world.ts'

const [OLD, NEW] = [makeSecretsKey(), makeSecretsKey()]
const [oldKey, newKey] = [secretBox(OLD).keyId, secretBox(NEW).keyId]
const SOON = { deadlineMs: 40_000 }

async function storeWebhook(world: World, box: SecretBox, secret: Buffer): Promise<string> {
  const webhook = { url: 'https://example.org/', topics: ['state'] as const, lowBalance: [], secret, box }
  const made = await world.db
    .transaction()
    .execute((trx) => createWebhook(trx, world.scope, { ...webhook, nowMs: Date.now() }))
  return made.id
}

/** As it was stored before there was a key. */
async function storeClear(world: World, secret: Buffer): Promise<string> {
  const id = await storeWebhook(world, secretBox(OLD), secret)
  await world.db.updateTable('webhook').set({ secret, encrypted_by: null }).where('id', '=', id).execute()
  return id
}

async function secretIn(world: World, id: string, box: SecretBox): Promise<Buffer> {
  const row = await world.db.selectFrom('webhook').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
  if (row.encrypted_by === null) throw new Error('it is in clear')
  const place = webhookSecretPlace({ id, projectId: row.project_id })
  return box.decrypt(place, { bytes: row.secret, encryptedBy: row.encrypted_by })
}

const isUnder = async (world: World, id: string) =>
  (await secretCounts(world.db)).every(({ encryptedBy }) => encryptedBy === id)

test('secrets that stand in clear are encrypted as soon as a process has a key, those of ended webhooks too', async () => {
  const world = await createWorld()
  const secrets = Array.from({ length: 250 }, () => randomBytes(32))
  const ids = await Promise.all(secrets.map((secret) => storeClear(world, secret)))
  await world.db
    .updateTable('webhook')
    .set({ ended_at: new Date() })
    .where('id', '=', ids[0] ?? '')
    .execute()
  await startKeyedEngine(world)
  expect(await secretCounts(world.db)).toEqual([{ encryptedBy: null, count: 250 }])
  await startKeyedEngine(world, { keys: [NEW] })
  await pollUntil(() => isUnder(world, newKey), { what: 'all are encrypted', ...SOON })
  for (const [index, id] of ids.entries()) expect(await secretIn(world, id, secretBox(NEW))).toEqual(secrets[index])
})

test('a new key takes over once all living processes encrypt with it, and not before', async () => {
  const world = await createWorld()
  const secret = randomBytes(32)
  const id = await storeWebhook(world, secretBox(OLD), secret)
  const settings = { name: 'sandbox', baseUrl: world.sandbox.url, apiKey: 'sandbox-key' }
  await storeProvider(world, secretBox(OLD), settings)
  const versions = await providerVersions(world.db)

  // The new line is added below first, so that all can read what the first one encrypts with it.
  const first = await startKeyedEngine(world, { keys: [OLD, NEW] })
  const behind = await startKeyedEngine(world, { keys: [OLD] })
  const ahead = await startKeyedEngine(world, { keys: [NEW, OLD] })
  expect(await encryptAgain(world.db, secretBox(`${NEW}\n${OLD}`))).toEqual({ encrypted: 0, unreadable: 0 })
  expect(await secretCounts(world.db)).toEqual([{ encryptedBy: oldKey, count: 2 }])
  await storeProvider(world, secretBox(NEW), { ...settings, name: 'lux' })
  for (const { engine } of [first, behind, ahead]) await engine.providers.look()
  expect([first, behind, ahead].map(({ engine }) => engine.providers.get('lux') !== undefined)).toEqual([
    true,
    false,
    true,
  ])
  expect(behind.complaints).toHaveLength(1)

  await first.engine.stop()
  await behind.engine.stop()
  await pollUntil(() => isUnder(world, newKey), { what: 'all is under the new key', ...SOON })
  expect(await secretIn(world, id, secretBox(NEW))).toEqual(secret)
  // What is configured is the same: no process has to read it again.
  expect((await providerVersions(world.db)).get('sandbox')).toBe(versions.get('sandbox'))

  const after = await startKeyedEngine(world, { keys: [NEW] })
  expect(after.complaints).toEqual([])
  expect([...after.engine.providers.values()].map(({ name }) => name).toSorted()).toEqual(['lux', 'sandbox'])
})

test('many processes at once encrypt each secret once, and one that no key opens stays as it is', async () => {
  const world = await createWorld()
  const both = secretBox(`${NEW}\n${OLD}`)
  const secrets = Array.from({ length: 120 }, () => randomBytes(32))
  const ids = await Promise.all(secrets.map((secret) => storeWebhook(world, secretBox(OLD), secret)))
  const lost = await storeWebhook(world, secretBox(makeSecretsKey()), randomBytes(32))
  await storeWebhook(world, secretBox(OLD), randomBytes(32))
  const turns = await Promise.all(Array.from({ length: 4 }, () => encryptAgain(world.db, both)))
  const last = await encryptAgain(world.db, both)
  expect(turns.reduce((sum, { encrypted }) => sum + encrypted, last.encrypted)).toBe(121)
  expect(last.unreadable).toBe(1)
  for (const [index, id] of ids.entries()) expect(await secretIn(world, id, both)).toEqual(secrets[index])
  await expect(secretIn(world, lost, both)).rejects.toThrow('no key')
})

test('a process that dies while it encrypts leaves each secret readable', async () => {
  const world = await createWorld()
  const id = await storeClear(world, Buffer.from('as it was before there was a key'))
  const dying = world.db.transaction().execute(async (trx) => {
    await trx
      .updateTable('webhook')
      .set({ secret: Buffer.from('half'), encrypted_by: newKey })
      .where('id', '=', id)
      .execute()
    throw new Error('killed')
  })
  await expect(dying).rejects.toThrow('killed')
  await encryptAgain(world.db, secretBox(NEW))
  expect((await secretIn(world, id, secretBox(NEW))).toString()).toBe('as it was before there was a key')
})
