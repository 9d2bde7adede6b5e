import { executeCall } from '#calls/execute.ts'
import { changeProvider } from '#db/provider.ts'
import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import { createProvider } from '#providers/create-provider.ts'
import { sql } from 'kysely'
import { expect, test } from 'vitest'
import { asAdmin } from '../support/admin.ts'
import { pollUntil } from '../support/poll.ts'
import { startKeyedEngine, storeProvider } from '../support/stored-providers.ts'
import { sendJson, useUpstream } from '../support/upstream.ts'
import { createWorld } from '../support/world.ts'

const key = makeSecretsKey()
const box = secretBox(key)
const SOON = { deadlineMs: 20_000 }

test('a key that is refused after it was changed closes no route to the new one', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const { promise: isChanged, resolve: change } = Promise.withResolvers<void>()
  const upstream = await useUpstream((response) => {
    const refuse = () => sendJson(response, { error: { message: 'Incorrect API key.', code: 'invalid_api_key' } }, 401)
    void isChanged.then(refuse)
  })
  await storeProvider(world, box, { name: 'sandbox', baseUrl: upstream.url, apiKey: 'key-of-yesterday' })
  const { engine } = await startKeyedEngine(world, { keys: [key] })
  const old = engine.providers.get('sandbox')
  const refused = executeCall(engine, run.request('one', 'When?'))
  await pollUntil(() => upstream.requests.length === 1, { what: 'the request is there', ...SOON })
  const settings = { name: 'sandbox', kind: 'openai', baseUrl: world.sandbox.url } as const
  await world.db.transaction().execute((trx) => changeProvider(trx, settings, { box, apiKey: 'sandbox-key' }))
  change()
  expect(await refused).toMatchObject({ kind: 'failed' })
  expect(engine.providers.get('sandbox')).not.toBe(old)
  expect(await executeCall(engine, run.request('two', 'When?'))).toMatchObject({ kind: 'answered' })
  expect(
    await world.db.selectFrom('route_state').select('opened_at').where('opened_at', 'is not', null).execute(),
  ).toEqual([])
})

test('a key that is refused and was not changed closes its route', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  await storeProvider(world, box, { name: 'sandbox', baseUrl: world.sandbox.url, apiKey: 'no-key-of-the-sandbox' })
  const { engine } = await startKeyedEngine(world, { keys: [key] })
  expect(await executeCall(engine, run.request('one', 'When?'))).toMatchObject({ kind: 'failed' })
  await pollUntil(
    async () => (await world.db.selectFrom('route_state').select('opened_at').execute()).some((row) => row.opened_at),
    { what: 'the circuit opens', ...SOON },
  )
})

test('a process without the key says so once, asks the providers of its environment, and learns of no other', async () => {
  const world = await createWorld()
  await storeProvider(world, box, { name: 'lux', baseUrl: world.sandbox.url, apiKey: 'lux-0123456789-marker' })
  await storeProvider(world, box, {
    name: 'sandbox',
    baseUrl: 'http://127.0.0.1:1/v1',
    apiKey: 'lux-9876543210-marker',
  })
  const settings = { name: 'sandbox', kind: 'openai', baseUrl: world.sandbox.url, apiKey: 'sandbox-key' } as const
  const fixed = [createProvider(settings, { nowMs: () => Date.now() })]
  const other = makeSecretsKey()
  const keyless = await startKeyedEngine(world, { fixed })
  const foreign = await startKeyedEngine(world, { fixed, keys: [other] })
  for (const { engine, complaints } of [keyless, foreign]) {
    await engine.providers.look()
    await engine.providers.look()
    expect([...engine.providers.values()].map(({ name }) => name)).toEqual(['sandbox'])
    expect(complaints).toHaveLength(2)
    expect(complaints.join('\n')).not.toMatch(/marker|0123456789/)
    const run = await world.openRun({ direct: 1_000_000_000n })
    expect(await executeCall(engine, run.request('one', 'When?'))).toMatchObject({ kind: 'answered' })
  }
  expect(keyless.complaints[0]).toContain('PURSER_SECRETS_KEY_FILE is not set')
  expect(foreign.complaints[0]).toContain(`no key ${box.keyId} is in PURSER_SECRETS_KEY_FILE`)
})

test('a key that was copied to another row, or whose address was changed by hand, is sent nowhere', async () => {
  const world = await createWorld()
  const seen = await useUpstream((response) => sendJson(response, {}, 500))
  await storeProvider(world, box, { name: 'sandbox', baseUrl: world.sandbox.url, apiKey: 'sandbox-key' })
  await storeProvider(world, box, { name: 'thief', baseUrl: seen.url, apiKey: 'thief-key' })
  const { engine, complaints } = await startKeyedEngine(world, { keys: [key] })
  const names = () => [...engine.providers.values()].map(({ name }) => name).toSorted()
  expect(names()).toEqual(['sandbox', 'thief'])
  // Who can write the table as the application does.
  await sql`
    update provider set api_key = (select api_key from provider where name = 'sandbox'),
      version = nextval('provider_version') where name = 'thief'`.execute(world.db)
  await engine.providers.look()
  expect(names()).toEqual(['sandbox'])
  await sql`update provider set base_url = ${seen.url}, version = nextval('provider_version') where name = 'sandbox'`.execute(
    world.db,
  )
  await engine.providers.look()
  expect(names()).toEqual([])
  expect(complaints.map((sentence) => sentence.split(' is not used')[0])).toEqual([
    'The provider thief',
    'The provider sandbox',
  ])
  expect(seen.requests).toEqual([])
})

test('while providers cannot be read, those that are known are asked; then changes are seen', async () => {
  const world = await createWorld()
  await storeProvider(world, box, { name: 'sandbox', baseUrl: world.sandbox.url, apiKey: 'sandbox-key' })
  const { engine } = await startKeyedEngine(world, { keys: [key] })
  await asAdmin(world, (admin) => admin.query('alter table provider rename to provider_away'))
  await engine.providers.look()
  expect(engine.providers.get('sandbox')).toBeDefined()
  await asAdmin(world, (admin) => admin.query('alter table provider_away rename to provider'))
  await world.db.deleteFrom('provider').execute()
  await pollUntil(() => engine.providers.get('sandbox') === undefined, { what: 'it is gone', ...SOON })
})
