import { MAX_VALUE_BYTES } from '#contracts/activities.ts'
import { passagesSchema } from '#contracts/passages.ts'
import { corpusStore } from '#db/corpus-search.ts'
import { addDocuments, createCorpus } from '#db/corpus.ts'
import { connectDatabase } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import { splitDocument } from '#tools/passages.ts'
import { TOOLS } from '#tools/registry.ts'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { z } from 'zod'
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let db: ReturnType<typeof connectDatabase>
let corpusId: string
const projectId = newId(Date.now())

const LONG_PATH = `${'very-long-folder/'.repeat(16)}index.md`
const TIDES =
  '# Tides\n\n## Spring tides\n\nThe water rises **twice a day**.\n\n> It is highest\n> at full moon.\n\n- Say “ahoy” first.'

beforeAll(async () => {
  database = await createTestDatabase()
  const owner = connectDatabase({ url: database.ownerUrl, maxConnections: 1 })
  const organisationId = newId(Date.now())
  await owner.insertInto('organisation').values({ id: organisationId, name: 'test' }).execute()
  await owner.insertInto('project').values({ id: projectId, organisation_id: organisationId, name: 'test' }).execute()
  await owner.destroy()
  db = connectDatabase({ url: database.appUrl, maxConnections: 2 })
  corpusId = (await createCorpus(db, { projectId }, { id: newId(Date.now()), name: 'test' })).id
  const pages = Array.from({ length: 70 }, (_, index) => ({
    source: `${LONG_PATH}-${index}`,
    text: `Page ${index} says that ${'the kelp grows slowly '.repeat(16)}.`,
  }))
  const documents = [{ source: 'tides.md', text: TIDES }, ...pages].map(splitDocument)
  await addDocuments(db, { projectId }, { corpusId, documents })
})

afterAll(async () => {
  await db.destroy()
  await database.drop()
})

async function run(tool: string, input: object) {
  const context = { store: corpusStore(db, { projectId }), signal: AbortSignal.timeout(10_000) }
  const output = await TOOLS[tool]?.run({ corpusId, ...input }, context)
  expect(Buffer.byteLength(JSON.stringify(output?.value))).toBeLessThanOrEqual(MAX_VALUE_BYTES)
  return output
}

const hitsSchema = z.object({ hits: z.array(z.object({ id: z.string() })) })

async function findIds(query: string, limit: number): Promise<readonly string[]> {
  const output = await run('search', { query, limit })
  return hitsSchema.parse(output?.value).hits.map((hit) => hit.id)
}

test('search names what it found, and keeps headings and scores in the payload', async () => {
  const output = await run('search', { query: 'When is the water highest?', limit: 3 })
  expect(output?.value).toEqual({
    hits: [{ id: expect.any(String), source: 'tides.md', title: 'Tides › Spring tides' }],
  })
  expect(output?.payload).toMatchObject({ hits: [{ coverage: 1, score: expect.any(Number) }] })
})

test('fetch gives passages as prompts take them', async () => {
  const output = await run('fetch', { passageIds: await findIds('water', 1) })
  expect(output?.value).toEqual({ count: 1 })
  expect(passagesSchema.parse(output?.payload).passages).toMatchObject([
    { source: 'tides.md', title: 'Tides › Spring tides', text: expect.stringContaining('full moon') },
  ])
})

test('cite keeps quotes that stand in their passage, whatever their marks and line breaks, and numbers them', async () => {
  const [passage = ''] = await findIds('water', 1)
  const output = await run('cite', {
    notes: [
      { passage, quote: 'It is highest at full moon.' },
      { passage, quote: 'The water rises twice a day.' },
      { passage, quote: 'rises twice\na day' },
      { passage, quote: 'Say "ahoy" first.' },
    ],
  })
  expect(output?.value).toMatchObject({
    citations: [
      { n: 1, passageId: passage, quote: 'It is highest at full moon.' },
      { n: 2, source: 'tides.md', title: 'Tides › Spring tides' },
      { n: 3, quote: 'Say "ahoy" first.' },
    ],
    rejected: 0,
  })
  expect(passagesSchema.parse(output?.payload).passages.map(({ id, text }) => [id, text])).toEqual([
    ['1', 'It is highest at full moon.'],
    ['2', 'The water rises twice a day.'],
    ['3', 'Say "ahoy" first.'],
  ])
})

test('cite rejects what a model made up', async () => {
  const [passage = ''] = await findIds('water', 1)
  const [other = ''] = await findIds('kelp', 1)
  const output = await run('cite', {
    notes: [
      { passage, quote: 'The water rises three times a day.' },
      { passage: other, quote: 'The water rises twice a day.' },
      { passage: newId(Date.now()), quote: 'The water rises twice a day.' },
      { passage: 'passage 1', quote: 'The water rises twice a day.' },
      { passage, quote: '' },
      { passage, quote: '**' },
      { passage, quote: 'water' },
    ],
  })
  expect(output?.value).toEqual({ citations: [], rejected: 7 })
  expect(passagesSchema.parse(output?.payload).passages).toEqual([])
})

test('a registry that does not fit into a history ends where it does, and the payload with it', async () => {
  const ids = [...(await findIds('kelp', 20)), ...(await findIds('page 3', 20)), ...(await findIds('page 4 kelp', 20))]
  const quote = `that ${'the kelp grows slowly '.repeat(16)}.`
  const output = await run('cite', { notes: ids.map((passage) => ({ passage, quote })) })
  const { passages } = passagesSchema.parse(output?.payload)
  expect(passages.length).toBeGreaterThan(10)
  expect(passages.length).toBeLessThan(ids.length)
  expect(passages[0]?.source).toMatch(/^very-long-folder.*index\.md-\d+$/)
})

test.for([
  ['search', { query: '' }],
  ['search', { query: 'water', limit: 21 }],
  ['fetch', { passageIds: ['passage 1'] }],
  ['fetch', { passageIds: [], extra: true }],
  ['cite', { notes: [{ passage: 'x' }] }],
] as const)('%s refuses %o', async ([tool, input]) => {
  await expect(run(tool, input)).rejects.toMatchObject({ code: 'invalid_request' })
})

test('a stopped run searches no more', async () => {
  const context = { store: corpusStore(db, { projectId }), signal: AbortSignal.abort() }
  await expect(TOOLS['search']?.run({ corpusId, query: 'water' }, context)).rejects.toThrow(/aborted/)
})
