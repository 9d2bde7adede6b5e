import type { CorpusStore } from '#contracts/corpus.ts'
import { corpusStore } from '#db/corpus-search.ts'
import { addDocuments, createCorpus, getCorpus, getPassage } from '#db/corpus.ts'
import { connectDatabase, type Scope } from '#db/database.ts'
import { newId } from '#db/ids.ts'
import type { Database } from '#db/schema.ts'
import { splitDocument } from '#tools/passages.ts'
import { sql, type Kysely } from 'kysely'
import { randomInt } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let owner: Kysely<Database>
let db: Kysely<Database>

beforeAll(async () => {
  database = await createTestDatabase()
  owner = connectDatabase({ url: database.ownerUrl, maxConnections: 1 })
  db = connectDatabase({ url: database.appUrl, maxConnections: 2 })
})

afterAll(async () => {
  await Promise.all([owner.destroy(), db.destroy()])
  await database.drop()
})

async function makeProject(): Promise<Scope> {
  const [organisationId, projectId] = [newId(Date.now()), newId(Date.now())]
  await owner.insertInto('organisation').values({ id: organisationId, name: 'test' }).execute()
  await owner
    .insertInto('project')
    .values({ id: projectId, organisation_id: organisationId, name: projectId })
    .execute()
  return { projectId }
}

interface Library {
  readonly scope: Scope
  readonly corpusId: string
  readonly store: CorpusStore
}

async function makeLibrary(documents: Readonly<Record<string, string>>, scope?: Scope): Promise<Library> {
  const tenant = scope ?? (await makeProject())
  const corpusId = newId(Date.now())
  await createCorpus(db, tenant, { id: corpusId, name: 'library' })
  await addDocuments(db, tenant, { corpusId, documents: toSplit(documents) })
  return { scope: tenant, corpusId, store: corpusStore(db, tenant) }
}

function toSplit(documents: Readonly<Record<string, string>>) {
  return Object.entries(documents).map(([source, text]) => splitDocument({ source, text }))
}

async function findTexts({ store, corpusId }: Library, query: string, limit = 5): Promise<readonly string[]> {
  const hits = await store.search({ corpusId, query, limit })
  const passages = await store.fetch({ corpusId, passageIds: hits.map((hit) => hit.id) })
  return passages.map((passage) => passage.text)
}

function madeUpWord(): string {
  const syllables = ['vor', 'zan', 'qui', 'mel', 'tor', 'ash', 'bry', 'kel', 'dun', 'fex', 'gol', 'hib', 'jor', 'lum']
  return Array.from({ length: 4 }, () => syllables[randomInt(syllables.length)]).join('')
}

test('a passage is found by the words of a question, and read back whole', async () => {
  const library = await makeLibrary({
    'mills.md': '# Mills\n\nThe mill of Orvane burnt down in 1711.',
    'boats.md': '# Boats\n\nThe boats of Telm are painted blue.',
  })
  const { store, corpusId, scope } = library
  const [hit] = await store.search({ corpusId, query: 'When did the mills of Orvane burn?', limit: 5 })
  expect(hit).toMatchObject({ source: 'mills.md', title: 'Mills' })
  const passageId = hit?.id ?? ''
  const passage = {
    id: passageId,
    source: 'mills.md',
    title: 'Mills',
    ordinal: 0,
    text: 'The mill of Orvane burnt down in 1711.',
  }
  expect(await store.fetch({ corpusId, passageIds: [passageId] })).toEqual([passage])
  expect(await getPassage(db, scope, { corpusId, passageId })).toEqual(passage)
})

test('facts about made-up words are the first hit of a question about them, among hundreds that look alike', async () => {
  const facts = Array.from({ length: 300 }, () => ({
    name: madeUpWord(),
    place: madeUpWord(),
    year: randomInt(1000, 9999),
  }))
  const library = await makeLibrary(
    Object.fromEntries(
      facts.map((fact, index) => [
        `facts/${index}.md`,
        `The keeper of the ${fact.name} lighthouse moved to ${fact.place} in the year ${fact.year}.`,
      ]),
    ),
  )
  for (const fact of facts.slice(0, 25)) {
    const [first] = await findTexts(library, `Where did the keeper of the ${fact.name} lighthouse move to?`)
    expect(first).toContain(fact.name)
  }
})

test('names in code are found by their parts, and prose ranks above code', async () => {
  const library = await makeLibrary({
    'code.md': '```js\nconst a = { removeAdditional: true, additionalProperties: false }\n```',
    'prose.md': 'Set `removeAdditional` to drop additional properties.',
    'other.md': 'Nothing of that kind.',
  })
  expect(await findTexts(library, 'How are additional properties removed?')).toEqual([
    expect.stringContaining('Set'),
    expect.stringContaining('const a'),
  ])
  expect(await findTexts(library, 'additionalProperties: false', 1)).toEqual([expect.stringContaining('const a')])
})

test('coverage is the share of the words found, and no word found is no hit', async () => {
  const { store, corpusId } = await makeLibrary({ 'a.md': 'Rust eats iron.', 'b.md': 'Iron is heavy.' })
  const hits = await store.search({ corpusId, query: 'Does rust eat iron?', limit: 5 })
  expect(hits.map((hit) => [hit.source, hit.coverage])).toEqual([
    ['a.md', 1],
    ['b.md', 1 / 3],
  ])
  expect(await store.search({ corpusId, query: 'zeppelin', limit: 5 })).toEqual([])
  expect(await store.search({ corpusId, query: 'the of and ? !', limit: 5 })).toEqual([])
})

test('marks of every kind in a question are words or nothing', async () => {
  const { store, corpusId } = await makeLibrary({ 'a.md': "The captain's log: it's <b>kept</b>." })
  for (const query of [`captain's | !log & ('`, `\\'; drop table passage; --`, '<-> :* kept:A', '“captain” — 日本']) {
    await expect(store.search({ corpusId, query, limit: 5 })).resolves.toBeInstanceOf(Array)
  }
  expect(await store.search({ corpusId, query: `captain's | !log`, limit: 5 })).toHaveLength(1)
})

test('a tenant sees nothing of another, with the other’s ids in hand', async () => {
  const theirs = await makeLibrary({ 'secret.md': 'The vault opens at noon.' })
  const ours = await makeLibrary({ 'plain.md': 'The vault is a fable.' })
  const stranger = corpusStore(db, ours.scope)
  const [hit] = await theirs.store.search({ corpusId: theirs.corpusId, query: 'vault', limit: 5 })
  const passageId = hit?.id ?? ''
  expect(passageId).not.toBe('')
  const { corpusId } = theirs
  expect(await stranger.search({ corpusId, query: 'vault', limit: 5 })).toEqual([])
  expect(await stranger.fetch({ corpusId, passageIds: [passageId] })).toEqual([])
  expect(await stranger.fetch({ corpusId: ours.corpusId, passageIds: [passageId] })).toEqual([])
  expect(await getCorpus(db, ours.scope, corpusId)).toBeUndefined()
  expect(await getPassage(db, ours.scope, { corpusId, passageId })).toBeUndefined()
  const documents = toSplit({ 'planted.md': 'The vault opens at midnight.' })
  await expect(addDocuments(db, ours.scope, { corpusId, documents })).rejects.toMatchObject({ code: 'not_found' })
  await expect(createCorpus(db, ours.scope, { id: corpusId, name: 'mine' })).rejects.toMatchObject({
    code: 'already_exists',
  })
})

test('the database itself refuses a passage whose tenant is not its corpus’s', async () => {
  const [theirs, ours] = [await makeLibrary({}), await makeLibrary({})]
  const row = sql`insert into passage (id, project_id, corpus_id, ordinal, source, title, body)
    values (${newId(Date.now())}, ${ours.scope.projectId}, ${theirs.corpusId}, 0, 's', 't', 'b')`
  await expect(row.execute(db)).rejects.toThrow(/foreign key/)
})

test('a search stays in its corpus, and one corpus does not change the ranks of another', async () => {
  const first = await makeLibrary({ 'a.md': 'Lanterns burn oil.', 'b.md': 'Lanterns hang on hooks of iron.' })
  const before = await first.store.search({ corpusId: first.corpusId, query: 'oil lanterns', limit: 5 })
  await makeLibrary({ 'c.md': 'Oil, oil, oil.', 'd.md': 'More oil.' }, first.scope)
  expect(await first.store.search({ corpusId: first.corpusId, query: 'oil lanterns', limit: 5 })).toEqual(before)
  expect(before.map((hit) => hit.source)).toEqual(['a.md', 'b.md'])
})

test('the same upload twice adds nothing, and the ids stay', async () => {
  const documents = { 'long.md': `# Long\n\n${'A sentence about tides and moons. '.repeat(100)}` }
  const { store, corpusId, scope } = await makeLibrary(documents)
  const before = await store.search({ corpusId, query: 'tides', limit: 20 })
  expect(before.length).toBeGreaterThan(2)
  expect(await addDocuments(db, scope, { corpusId, documents: toSplit(documents) })).toBe(0)
  expect(await store.search({ corpusId, query: 'tides', limit: 20 })).toEqual(before)
})

test('more passages than one statement takes are all added', async () => {
  const documents = Object.fromEntries(Array.from({ length: 1_100 }, (_, index) => [`${index}.md`, `Page ${index}.`]))
  const { scope, corpusId } = await makeLibrary({})
  expect(await addDocuments(db, scope, { corpusId, documents: toSplit(documents) })).toBe(1_100)
})

test('passages come in the order asked for; made-up ids are left out', async () => {
  const { store, corpusId } = await makeLibrary({ 'a.md': 'Alpha rows.', 'b.md': 'Beta rows.' })
  const hits = await store.search({ corpusId, query: 'rows', limit: 5 })
  const ids = hits.map((hit) => hit.id).toReversed()
  const passages = await store.fetch({ corpusId, passageIds: ['passage-1', ...ids, newId(Date.now()), "'"] })
  expect(passages.map((passage) => passage.id)).toEqual(ids)
})
