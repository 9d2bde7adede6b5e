import { executeCall } from '#calls/execute.ts'
import { startEngine } from '#calls/start-engine.ts'
import { createOpenAiCompatible } from '#providers/openai-compatible.ts'
import { sql, type KyselyPlugin } from 'kysely'
import { expect, onTestFinished, test } from 'vitest'
import { expectVerified, QUESTION } from '../support/open-attempt.ts'
import { pollUntil } from '../support/poll.ts'
import { sendJson, useUpstream } from '../support/upstream.ts'
import { createWorld, requestsSeen, type World } from '../support/world.ts'

test('a request is stored in the commit of its hold, and a large one before it, so that many large ones fit', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const engine = await world.startEngine()
  const image = { type: 'image' as const, url: `data:image/png;base64,${'A'.repeat(200_000)}` }
  const content = [{ type: 'text' as const, text: QUESTION }, image]
  const body = { messages: [{ role: 'user' as const, content }], maxTokens: 20 }
  await executeCall(engine, run.request('small', QUESTION))
  await executeCall(engine, run.request('large', '', { body }))
  const { rows } = await sql`
    select c.path, p.xmin::text = h.xid::text as together from call c join payload p on p.id = c.request_id
      join transfer h on h.call_id = c.id and h.code = 'hold'
    order by c.path`.execute(world.db)
  expect(rows).toEqual([
    { path: 'large', together: false },
    { path: 'small', together: true },
  ])
  expect(await requestsSeen(world.sandbox)).toHaveLength(2)
  await expectVerified(world)
})

/** Tells each text that a statement carries. */
function listening(tell: (text: string) => void): KyselyPlugin {
  return {
    transformQuery({ node }) {
      for (const each of node.kind === 'RawNode' ? node.parameters : []) {
        if ('value' in each && typeof each.value === 'string') tell(each.value)
      }
      return node
    },
    transformResult: async ({ result }) => result,
  }
}

async function startListeningEngine(world: World, tell: (text: string) => void, baseUrl = world.sandbox.url) {
  const provider = createOpenAiCompatible({
    name: 'sandbox',
    baseUrl,
    apiKey: 'sandbox-key',
    nowMs: () => Date.now(),
  })
  const engine = await startEngine({
    db: world.db.withPlugin(listening(tell)),
    databaseUrl: world.database.appUrl,
    kind: 'test',
    providers: [provider],
  })
  onTestFinished(() => engine.stop())
  return engine
}

test('a call that waits for money brings its request along once, however often its hold is asked for', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000n })
  const sent: string[] = []
  const engine = await startListeningEngine(world, (text) => sent.push(text))
  await world.sandbox.control('PUT', '/faults/sandbox-steady', { hang: true })
  const gone = new AbortController()
  const body = (content: string) => ({ body: { messages: [{ role: 'user' as const, content }], maxTokens: 500 } })
  const calls = ['one', 'two MARKED', 'three MARKED'].map((content) =>
    executeCall(engine, run.request(content, '', { ...body(content), signal: gone.signal })),
  )
  // The first holds most of what there is; the others are asked for each tenth of a second.
  const asked = () => sent.filter((text) => text.includes('"owner":')).length
  await pollUntil(() => asked() >= 10, { what: 'holds that are asked for again' })
  gone.abort()
  await Promise.all(calls)
  expect(sent.filter((text) => text.includes('MARKED'))).toHaveLength(2)
  expect(await requestsSeen(world.sandbox)).toHaveLength(1)
  await expectVerified(world)
})

test('a large answer is settled on its own, so that many large ones fit', async () => {
  const world = await createWorld()
  const run = await world.openRun({ direct: 1_000_000_000n })
  const embedding = Buffer.from(new Float32Array(1_536)).toString('base64')
  const data = Array.from({ length: 40 }, (_, index) => ({ index, embedding }))
  const upstream = await useUpstream((response) => sendJson(response, { data, usage: { prompt_tokens: 80 } }))
  const batches: string[] = []
  const tell = (text: string) => void (text.startsWith('[') && batches.push(text))
  const engine = await startListeningEngine(world, tell, upstream.url)
  const body = { input: Array.from({ length: 40 }, (_, index) => `text ${index}`) }
  const result = await executeCall(engine, run.request('vectors', '', { body }))
  expect(result).toMatchObject({ kind: 'answered' })
  expect(Math.max(...batches.map((each) => each.length))).toBeLessThan(65_536)
  expect(await executeCall(engine, run.request('vectors', '', { body }))).toEqual(result)
  await expectVerified(world)
})
