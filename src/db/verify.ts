import { sql, type Kysely, type RawBuilder } from 'kysely'
import { verifyChecks } from './verify-checks.ts'
import type { Database } from './schema.ts'

export interface VerifyCheck {
  readonly name: string
  /** What must hold, as one sentence. */
  readonly claim: string
  readonly ok: boolean
  /** How many rows were looked at. */
  readonly rows: number
  readonly ms: number
  /** The first row that is wrong, with what is wrong about it. */
  readonly firstWrong: string | null
}

export interface Verification {
  readonly ok: boolean
  readonly checks: readonly VerifyCheck[]
}

/** A check over rows of (name, wrong, place): `wrong` is null when the row is right. */
export interface CheckQuery {
  readonly name: string
  readonly claim: string
  readonly rows: RawBuilder<{ name: string; wrong: string | null; place: bigint }>
}

/** Recomputes what the ledger says from its journal, over all tenants, and compares. Reads only; each check is a statement of its own. */
export async function verifyLedger(db: Kysely<Database>): Promise<Verification> {
  const checks: VerifyCheck[] = []
  for (const check of verifyChecks) checks.push(await run(db, check))
  return { ok: checks.every((check) => check.ok), checks }
}

async function run(db: Kysely<Database>, check: CheckQuery): Promise<VerifyCheck> {
  const startedMs = performance.now()
  const { rows } = await sql<{ rows: bigint; firstWrong: string | null }>`
    select count(*) as rows,
      (array_agg(name || ': ' || wrong order by place) filter (where wrong is not null))[1] as "firstWrong"
    from (${check.rows}) as checked`.execute(db)
  const found = rows[0] ?? { rows: 0n, firstWrong: 'the check returned nothing' }
  return {
    name: check.name,
    claim: check.claim,
    ok: found.firstWrong === null,
    rows: Number(found.rows),
    ms: Math.round(performance.now() - startedMs),
    firstWrong: found.firstWrong,
  }
}
