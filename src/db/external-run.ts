import { EXTERNAL_AGENT } from '#contracts/agents.ts'
import type { ExternalRequest } from '#contracts/api-external.ts'
import { ANY_MODEL } from '#contracts/names.ts'
import { invariant } from '#domain/invariant.ts'
import { sql, type Kysely, type Transaction } from 'kysely'
import { createKey, getKey, type ApiKey } from './api-key.ts'
import type { Scope } from './database.ts'
import { addEvent } from './event.ts'
import { setDeadline } from './run-begin.ts'
import { startRun, type StartRequest } from './run-start.ts'
import { become } from './run.ts'
import type { Database } from './schema.ts'

/** A run whose calls are made outside. */
export interface NewExternalRun {
  readonly request: ExternalRequest
  /** Who opens it. */
  readonly keyId: string
  readonly organisationId: string
  /** Of the key that works for it. */
  readonly secret: string
  readonly nowMs: number
}

/** The run that such a request is. */
export function runRequestOf(request: ExternalRequest): StartRequest {
  const { name, model = ANY_MODEL, envelope, idleSeconds, ...choices } = request
  return {
    agent: EXTERNAL_AGENT,
    model,
    input: { idleSeconds, ...(name !== undefined && { name }) },
    envelope: { ...envelope, wrapUpPercent: 0 },
    onExhausted: 'refuse',
    priority: 3,
    ...choices,
  }
}

/**
 * Sets the money aside, and issues the key of the run. It is running from here on: nothing of it waits for a worker, so
 * it takes none of its project's places. Its workflow ends it.
 *
 * @throws Problem `wallet_short`, `debt_outstanding`, `limit_short`
 */
export async function openExternalRun(
  trx: Transaction<Database>,
  scope: Scope,
  run: NewExternalRun,
): Promise<{ readonly runId: string; readonly key: ApiKey }> {
  const { keyId, organisationId, secret, nowMs } = run
  const request = runRequestOf(run.request)
  const runId = await startRun(trx, scope, { request, input: request.input, keyId, nowMs })
  await trx
    .updateTable('run')
    .set({ admitted_at: sql<Date>`clock_timestamp()` })
    .where('project_id', '=', scope.projectId)
    .where('id', '=', runId)
    .execute()
  await become(trx, scope, { runId, from: 'queued', to: 'running' })
  const seconds = request.limits?.seconds
  if (seconds !== undefined) await setDeadline(trx, scope, { runId, seconds })
  const opener = await getKey(trx, organisationId, keyId)
  invariant(opener !== undefined, 'who opens a run has a key')
  // What binds the key that opens it binds the run's: from where, and for how long.
  const { allowedIps, expiresAt } = opener
  const rights = { scopes: ['calls', 'read'], allowedIps, expiresAt, name: `run ${runId}` } as const
  const key = await createKey(trx, { ...scope, ...rights, organisationId, secret, madeBy: keyId, nowMs, runId })
  return { runId, key }
}

/** Tells the owner of an external run that a call of it was refused for money, or by a limit. */
export async function tellExhausted(
  db: Kysely<Database>,
  scope: Scope,
  { runId, told }: { readonly runId: string; readonly told: Readonly<Record<string, string>> },
): Promise<void> {
  await db.transaction().execute((trx) => addEvent(trx, scope, { runId, kind: 'run.exhausted', data: told }))
}
