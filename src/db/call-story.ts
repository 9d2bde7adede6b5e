import type { CallStory } from '#contracts/report.ts'
import type { Kysely } from 'kysely'
import { attemptMoney } from './attempt-money.ts'
import { readCallJournal } from './call-journal.ts'
import { readCalls } from './call-read.ts'
import type { Scope } from './database.ts'
import { totalsOf } from './report-totals.ts'
import type { Database } from './schema.ts'

/** One call's story: who asked, what for, what served it, what was tried, what paid, what bound it, and the proof. */
export async function readCallStory(
  db: Kysely<Database>,
  scope: Scope,
  callId: string,
): Promise<CallStory | undefined> {
  const row = await callRow(db, scope, callId)
  if (!row) return undefined
  const journal = await readCallJournal(db, scope, [callId])
  const attempts = attemptMoney(journal)
  const [call] = await readCalls(db, scope, { of: { callIds: [callId] }, attempts })
  if (!call) return undefined
  const served = call.attempts.find((attempt) => attempt.number === call.answeredBy)
  return {
    runId: row.run_id,
    projectId: scope.projectId,
    apiKey: { id: row.api_key_id, name: row.key_name, hint: row.key_hint },
    project: { id: scope.projectId, name: row.project_name },
    asked: {
      model: call.model,
      path: call.path,
      catalogVersion: row.catalog_version,
      at: row.created_at.toISOString(),
    },
    served: served
      ? {
          provider: served.provider,
          upstreamModel: served.upstreamModel,
          route: served.route,
          attempt: served.number,
        }
      : null,
    paid: totalsOf(journal, attempts).map((total) => ({ balanceClass: total.balanceClass, charged: total.spent })),
    bound: {
      envelopeId: row.envelope_id,
      gate: row.gate,
      verdict: call.state === 'answered' ? 'allowed' : call.stopReason === null ? 'in_flight' : 'stopped',
      reason: call.stopReason,
    },
    stored: await storedTexts(db, scope, row),
    call,
  }
}

async function storedTexts(
  db: Kysely<Database>,
  scope: Scope,
  { request_id: requestId, answer_id: answerId }: { readonly request_id: string; readonly answer_id: string | null },
): Promise<CallStory['stored']> {
  const rows = await db
    .selectFrom('payload')
    .select(['id', 'digest', 'erased_at'])
    .where('project_id', '=', scope.projectId)
    .where('id', 'in', answerId === null ? [requestId] : [requestId, answerId])
    .execute()
  const textOf = (id: string | null) => {
    const row = rows.find((each) => each.id === id)
    return row && { erasedAt: row.erased_at?.toISOString() ?? null, sha256: row.digest?.toString('hex') ?? null }
  }
  return { request: textOf(requestId) ?? { erasedAt: null, sha256: null }, answer: textOf(answerId) ?? null }
}

function callRow(db: Kysely<Database>, scope: Scope, callId: string) {
  return db
    .selectFrom('call')
    .innerJoin('envelope', 'envelope.id', 'call.envelope_id')
    .innerJoin('project', 'project.id', 'call.project_id')
    .leftJoin('api_key', 'api_key.id', 'call.api_key_id')
    .selectAll('call')
    .select(['envelope.gate', 'project.name as project_name', 'api_key.name as key_name', 'api_key.hint as key_hint'])
    .where('call.project_id', '=', scope.projectId)
    .where('call.id', '=', callId)
    .executeTakeFirst()
}
