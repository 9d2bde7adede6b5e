import type { Page } from '#contracts/api-page.ts'
import type { Corpus, Passage, SplitDocument } from '#contracts/corpus.ts'
import { Problem } from '#contracts/codes.ts'
import { type Kysely, sql } from 'kysely'
import type { Scope } from './database.ts'
import { deriveId } from './ids.ts'
import { pageBy } from './page.ts'
import type { Database } from './schema.ts'

/** Making the search vectors of so many takes well under a second; a write transaction may take five. */
const PASSAGES_PER_INSERT = 500

/** Models make up ids: what is none must not reach a uuid column. */
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/** Safe to repeat with the same id. */
export async function createCorpus(
  db: Kysely<Database>,
  scope: Scope,
  corpus: Corpus & { readonly digest?: string },
): Promise<Corpus> {
  await db
    .insertInto('corpus')
    .values({ id: corpus.id, project_id: scope.projectId, name: corpus.name, digest: corpus.digest ?? null })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .execute()
  const stored = await getCorpus(db, scope, corpus.id)
  if (!stored) throw new Problem('already_exists', 'another project has a corpus of this id')
  return stored
}

export async function getCorpus(db: Kysely<Database>, scope: Scope, corpusId: string): Promise<Corpus | undefined> {
  return db
    .selectFrom('corpus')
    .select(['id', 'name'])
    .where('project_id', '=', scope.projectId)
    .where('id', '=', corpusId)
    .executeTakeFirst()
}

/** The corpora of a project; a place is an id. */
export async function listCorpora(db: Kysely<Database>, scope: Scope, page: Page): Promise<readonly Corpus[]> {
  return db
    .selectFrom('corpus')
    .select(['id', 'name'])
    .where('project_id', '=', scope.projectId)
    .where(pageBy(sql.ref('id'), page).follows)
    .orderBy('id', page.order)
    .limit(page.limit)
    .execute()
}

/**
 * Adds the passages of documents to a corpus; those that it has already (same source and ordinal) stay as they are.
 * Not one transaction: what was added before a failure is kept, and repeating adds the rest.
 *
 * @returns the number of passages added
 * @throws Problem `not_found` when the project has no such corpus
 */
export async function addDocuments(
  db: Kysely<Database>,
  scope: Scope,
  upload: { readonly corpusId: string; readonly documents: readonly SplitDocument[] },
): Promise<number> {
  if (!(await getCorpus(db, scope, upload.corpusId))) throw new Problem('not_found', `no corpus ${upload.corpusId}`)
  const rows = upload.documents.flatMap(({ source, title, passages }) =>
    passages.map(({ heading, text }, ordinal) => ({ source, title, heading, text, ordinal })),
  )
  let added = 0
  for (let from = 0; from < rows.length; from += PASSAGES_PER_INSERT) {
    const some = rows.slice(from, from + PASSAGES_PER_INSERT)
    const result = await sql`
      insert into passage (id, project_id, corpus_id, ordinal, source, title, heading, body)
      select row.id, ${scope.projectId}::uuid, ${upload.corpusId}::uuid, row.ordinal, row.source, row.title,
        row.heading, row.body
      from unnest(
        ${some.map((row) => deriveId(upload.corpusId, row.source, String(row.ordinal)))}::uuid[],
        ${some.map((row) => row.ordinal)}::integer[],
        ${some.map((row) => row.source)}::text[],
        ${some.map((row) => row.title)}::text[],
        ${some.map((row) => row.heading ?? null)}::text[],
        ${some.map((row) => row.text)}::text[]
      ) as row (id, ordinal, source, title, heading, body)
      on conflict (corpus_id, source, ordinal) do nothing
    `.execute(db)
    added += Number(result.numAffectedRows ?? 0n)
  }
  return added
}

export async function getPassage(
  db: Kysely<Database>,
  scope: Scope,
  key: { readonly corpusId: string; readonly passageId: string },
): Promise<Passage | undefined> {
  const [passage] = await getPassages(db, scope, { corpusId: key.corpusId, passageIds: [key.passageId] })
  return passage
}

/** In the order of the ids; those that are not in this corpus, or not ids at all, are left out. */
export async function getPassages(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly corpusId: string; readonly passageIds: readonly string[] },
): Promise<readonly Passage[]> {
  const ids = request.passageIds.filter((id) => UUID.test(id))
  if (ids.length === 0) return []
  const rows = await db
    .selectFrom('passage')
    .select(['id', 'source', 'title', 'heading', 'ordinal', 'body'])
    .where('project_id', '=', scope.projectId)
    .where('corpus_id', '=', request.corpusId)
    .where('id', 'in', ids)
    .execute()
  const byId = new Map(rows.map((row) => [row.id, row]))
  return request.passageIds.flatMap((id) => {
    const row = byId.get(id)
    if (!row) return []
    const { heading, body, ...rest } = row
    return [{ ...rest, ...(heading === null ? {} : { heading }), text: body }]
  })
}
