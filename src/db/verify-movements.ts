import { sql, type Kysely } from 'kysely'
import { isLater, isWithin, type JournalRange, type Place } from './journal-range.ts'
import type { Finding } from './verify-check.ts'
import type { Group } from './verify-fold.ts'
import type { Database } from './schema.ts'

interface Account {
  readonly id: string
  readonly kind: string
  readonly projectId: string
  readonly currency: string
}

interface WrongGroup {
  readonly piece: JournalRange
  readonly group: Group
  readonly wrong: string
}

/** Groups that are looked up for their first row: a ledger that is wrong everywhere needs no longer list. */
const MAX_WRONG = 20
const GUARDED: ReadonlySet<string> = new Set(['wallet', 'pocket'])

/** Looks at who moved what to whom, group by group, while the journal is read. */
export class MovementCheck {
  readonly #db: Kysely<Database>
  readonly #accounts = new Map<string, Account>()
  readonly #tenants: WrongGroup[] = []
  readonly #movements: WrongGroup[] = []
  #allowed: ReadonlySet<string> | undefined

  constructor(db: Kysely<Database>) {
    this.#db = db
  }

  async look(piece: JournalRange, groups: readonly Group[]): Promise<void> {
    this.#allowed ??= await readAllowed(this.#db)
    await this.#learn(groups)
    for (const group of groups) {
      const debit = this.#accounts.get(group.debit)
      const credit = this.#accounts.get(group.credit)
      const foreign = wrongTenant(group, debit, credit)
      if (foreign !== null && this.#tenants.length < MAX_WRONG) this.#tenants.push({ piece, group, wrong: foreign })
      const movement = `${group.code} from ${debit?.kind} to ${credit?.kind}`
      if (this.#allowed.has(movement) || this.#movements.length >= MAX_WRONG) continue
      this.#movements.push({ piece, group, wrong: `is a ${movement}, and nothing allows that` })
    }
  }

  async findings(rows: number): Promise<{ readonly tenants: Finding; readonly movements: Finding }> {
    return {
      tenants: { rows, firstWrong: await firstOf(this.#db, this.#tenants) },
      movements: { rows, firstWrong: await firstOf(this.#db, this.#movements) },
    }
  }

  async #learn(groups: readonly Group[]): Promise<void> {
    const named = new Set(groups.flatMap(({ debit, credit }) => [debit, credit]))
    const unknown = [...named].filter((id) => !this.#accounts.has(id))
    if (unknown.length === 0) return
    const { rows } = await sql<Account>`
      select id, kind, project_id as "projectId", currency from account where id = any(${unknown}::uuid[])`.execute(
      this.#db,
    )
    for (const row of rows) this.#accounts.set(row.id, row)
  }
}

async function readAllowed(db: Kysely<Database>): Promise<ReadonlySet<string>> {
  const { rows } = await sql<{ movement: string }>`
    select code || ' from ' || debit_kind || ' to ' || credit_kind as movement from allowed_movement`.execute(db)
  return new Set(rows.map(({ movement }) => movement))
}

function wrongTenant(group: Group, debit: Account | undefined, credit: Account | undefined): string | null {
  if (!debit || !credit) return 'an account is missing'
  if (debit.projectId !== group.projectId || credit.projectId !== group.projectId)
    return 'an account of another project'
  if (debit.currency !== group.currency || credit.currency !== group.currency) return 'an account of another currency'
  if (GUARDED.has(debit.kind) !== group.isDebitGuarded) return 'the debit side has no version'
  if (GUARDED.has(credit.kind) !== group.isCreditGuarded) return 'the credit side has no version'
  return null
}

async function firstOf(db: Kysely<Database>, wrong: readonly WrongGroup[]): Promise<string | null> {
  let first: { readonly place: Place; readonly sentence: string } | undefined
  for (const each of wrong) {
    const { group } = each
    const { rows } = await sql<{ id: string; xid: string; seq: bigint }>`
      select t.id, t.xid::text as xid, t.seq from transfer t
      where ${isWithin(each.piece)} and t.debit_account = ${group.debit} and t.credit_account = ${group.credit}
        and t.code = ${group.code} and t.project_id = ${group.projectId} and t.currency = ${group.currency}
        and (t.debit_version is not null) = ${group.isDebitGuarded}
        and (t.credit_version is not null) = ${group.isCreditGuarded}
      order by t.xid, t.seq limit 1`.execute(db)
    const [row] = rows
    if (!row) continue
    const place = { xid: BigInt(row.xid), seq: row.seq }
    if (!first || isLater(first.place, place)) first = { place, sentence: `transfer ${row.id}: ${each.wrong}` }
  }
  return first?.sentence ?? null
}
