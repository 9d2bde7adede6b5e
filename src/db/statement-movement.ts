import type { BalanceClass, Certainty, TransferCode, Use } from '#contracts/names.ts'
import { sql, type Kysely } from 'kysely'
import { recordedAtText } from './instant.ts'
import type { Database } from './schema.ts'

/** One movement of a wallet's account, with everything that says what it was for. Money in nano. */
export interface StatementMovement {
  readonly id: string
  readonly seq: bigint
  readonly recordedAt: string
  readonly code: TransferCode
  /** Negative: out of the account. */
  readonly amount: bigint
  readonly balance: bigint
  /** The kind of the other side's account. */
  readonly counterparty: string
  readonly reference: string | null
  readonly reverses: string | null
  readonly lotId: string | null
  readonly lotSource: string | null
  readonly lotExpiresAt: Date | null
  readonly quoteId: string | null
  readonly quoteSource: string | null
  readonly sellCurrency: string | null
  readonly sell: bigint | null
  readonly buyCurrency: string | null
  readonly buy: bigint | null
  readonly envelopeId: string | null
  readonly envelopeKind: string | null
  readonly runId: string | null
  readonly agent: string | null
  readonly apiKeyId: string | null
  readonly apiKeyName: string | null
  readonly callId: string | null
  readonly attempt: number | null
  readonly model: string | null
  readonly certainty: Certainty | null
  readonly use: Use | null
}

/** A wallet's account in a statement: `(openingSeq, closingSeq]` are its movements. */
export interface StatementAccount {
  readonly accountId: string
  readonly balanceClass: BalanceClass
  readonly currency: string
  readonly openingSeq: bigint
  readonly closingSeq: bigint
}

/** Movements of one read, each with its names: some tens of milliseconds. */
const MOVEMENTS_PER_READ = 1_000

/**
 * The movements of a wallet's account between two of them, in order, in batches. An account's movements are numbered
 * under its lock: whoever sees one sees all before it, so that no snapshot has to be held over the batches.
 */
export async function* movementsOf(
  db: Kysely<Database>,
  account: StatementAccount,
): AsyncGenerator<readonly StatementMovement[]> {
  let after = account.openingSeq
  while (after < account.closingSeq) {
    const { rows } = await movementsAfter(account, after).execute(db)
    const last = rows.at(-1)
    if (!last) return
    yield rows
    after = last.seq
  }
}

function movementsAfter({ accountId, closingSeq }: StatementAccount, after: bigint) {
  return sql<StatementMovement>`
    with moved as (
      (select t.*, -t.amount as signed, t.debit_balance as balance, t.credit_account as other from transfer t
        where t.debit_account = ${accountId} and t.seq > ${after} and t.seq <= ${closingSeq}
          and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
        order by t.seq limit ${MOVEMENTS_PER_READ})
      union all
      (select t.*, t.amount, t.credit_balance, t.debit_account from transfer t
        where t.credit_account = ${accountId} and t.seq > ${after} and t.seq <= ${closingSeq}
          and t.code not in ('hold', 'capture', 'void', 'expire', 'overage', 'carve')
        order by t.seq limit ${MOVEMENTS_PER_READ})
      order by seq limit ${MOVEMENTS_PER_READ}
    )
    select t.id, t.seq, ${recordedAtText} as "recordedAt", t.code, t.signed as amount, t.balance,
      o.kind as counterparty, t.reference, t.reverses, t.lot_id as "lotId", l.source as "lotSource",
      l.expires_at as "lotExpiresAt", t.quote_id as "quoteId", q.source as "quoteSource",
      q.sell_currency as "sellCurrency", q.sell, q.buy_currency as "buyCurrency", q.buy, t.envelope_id as "envelopeId",
      e.kind as "envelopeKind", coalesce(t.run_id, e.run_id) as "runId", r.agent, k.id as "apiKeyId",
      k.name as "apiKeyName", t.call_id as "callId", t.attempt, coalesce(c.model, r.model) as model, t.certainty, t.use
    from moved t
    join account o on o.id = t.other
    left join lot l on l.id = t.lot_id
    left join quote q on q.id = t.quote_id
    left join envelope e on e.id = t.envelope_id
    left join run r on r.id = coalesce(t.run_id, e.run_id)
    left join api_key k on k.id = coalesce(e.api_key_id, r.api_key_id)
    left join call c on c.id = t.call_id
    order by t.seq`
}
