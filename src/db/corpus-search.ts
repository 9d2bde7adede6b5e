import type { CorpusStore, SearchHit } from '#contracts/corpus.ts'
import { type Kysely, sql } from 'kysely'
import { getPassages } from './corpus.ts'
import type { Scope } from './database.ts'
import type { Database } from './schema.ts'

/** Words of a question beyond these add time and no meaning. */
const MAX_WORDS = 48
/** Passages whose words are read, best sums of rare words first. */
const MAX_CANDIDATES = 200

export function corpusStore(db: Kysely<Database>, scope: Scope): CorpusStore {
  return {
    search: (query) => searchPassages(db, scope, query),
    fetch: (request) => getPassages(db, scope, request),
  }
}

/**
 * Any word of the query finds; what is found is ranked by how rare its words are in this corpus (idf), where and how
 * often they stand (ts_rank), and how close to each other (ts_rank_cd).
 *
 * Counting goes through the index, one word at a time, with the corpus's mark as its only other condition: a condition
 * on a column would tempt the planner to read every vector of the corpus. Only the candidates' vectors are read.
 */
async function searchPassages(
  db: Kysely<Database>,
  scope: Scope,
  request: { readonly corpusId: string; readonly query: string; readonly limit: number },
): Promise<readonly SearchHit[]> {
  const { rows } = await sql<Omit<SearchHit, 'heading'> & { readonly heading: string | null }>`
    with word as materialized (
      select lexeme, quote_literal(lexeme)::tsquery as query, mark && quote_literal(lexeme)::tsquery as here
      from unnest(to_tsvector('english', corpus_words_and_parts(${request.query}))),
        (select quote_literal(corpus_mark(id))::tsquery as mark from corpus
          where project_id = ${scope.projectId} and id = ${request.corpusId}) as corpus
      limit ${MAX_WORDS}
    ), size as materialized (
      select count(*) as passages from passage where search @@ quote_literal(corpus_mark(${request.corpusId}))::tsquery
    ), match as materialized (
      select word.lexeme, found.id from word
      cross join lateral (select id from passage where search @@ word.here) as found
    ), weight as materialized (
      select lexeme, ln(1 + (passages - count(id) + 0.5) / (count(id) + 0.5))::float8 as idf
      from word cross join size left join match using (lexeme) group by lexeme, passages
    ), candidate as materialized (
      select match.id, count(*) as words from match join weight using (lexeme)
      group by match.id order by sum(idf) desc, match.id limit ${MAX_CANDIDATES}
    )
    select passage.id, source, title, heading,
      rank.score / (select sum(idf) from weight) as score,
      candidate.words::float8 / (select count(*) from word) as coverage
    from candidate join passage using (id) cross join lateral (
      select sum(idf * ts_rank('{0.35, 0.7, 0.85, 1}', search, query))
          + 0.08 * sum(idf) * ts_rank_cd('{0.35, 0.7, 0.85, 1}', search,
            string_agg(quote_literal(lexeme), ' & ')::tsquery, 32) as score
      from word join weight using (lexeme) where search @@ query
    ) as rank
    where project_id = ${scope.projectId} and corpus_id = ${request.corpusId}
    order by score desc, passage.id limit ${request.limit}
  `.execute(db)
  return rows.map(({ heading, ...hit }) => (heading === null ? hit : { ...hit, heading }))
}
