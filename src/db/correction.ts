import type { Certainty } from '#contracts/names.ts'
import { invariant } from '#domain/invariant.ts'
import { sql, type Kysely } from 'kysely'
import type { PocketKey } from './hold.ts'
import { json } from './json.ts'
import { refusable } from './refusable.ts'
import type { Database } from './schema.ts'

/** The truth about an attempt that was already resolved by estimate. */
export interface Correction {
  readonly holdId: string
  readonly correctionId: string
  readonly debtId: string
  readonly amount: bigint
  readonly tokens: bigint | null
  readonly certainty: Certainty
  readonly usage: unknown
  readonly detail: unknown
  readonly answerId: string | null
  readonly answer: unknown
  /** By hand: only for a lost attempt whose cost nobody knows, and decided under the lock that the truth takes. */
  readonly voids?: true
}

export type CorrectVerdict =
  | 'corrected'
  | 'replayed'
  | 'mismatch'
  | 'known'
  | 'unresolved'
  | 'unknown_hold'
  | 'invalid_amount'

/** Books truth minus estimate, its margin as well, and stores the answer if the call has none yet. */
export async function correct(db: Kysely<Database>, pocket: PocketKey, item: Correction): Promise<CorrectVerdict> {
  const body = json({
    hold_id: item.holdId,
    correction_id: item.correctionId,
    debt_id: item.debtId,
    amount: refusable(item.amount),
    tokens: item.tokens === null ? null : refusable(item.tokens),
    certainty: item.certainty,
    usage: item.usage,
    detail: item.detail,
    answer_id: item.answerId,
    answer: item.answer,
    voids: item.voids,
  })
  const { rows } = await sql<{ verdict: CorrectVerdict }>`
    select correct(${pocket.projectId}, ${pocket.accountId}, ${body}::jsonb) as verdict`.execute(db)
  const [row] = rows
  invariant(row, 'correct returns a row')
  return row.verdict
}
